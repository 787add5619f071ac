"""ZOA's estimator on a quadratic (docs/specification.md §12.2), and the distribution of its directions."""

from __future__ import annotations

import numpy as np
import pytest
from fozo.engine.model import FloatArray
from fozo.engine.search.gradient_steps import take_fresh_adamw_step, take_sgd_step
from fozo.engine.search.spsa import compute_quotients, draw_segmented_direction

CURVATURE = np.arange(1.0, 7.0)
POINT = 0.1 * np.arange(6)
GRADIENT = CURVATURE * POINT


def quadratic(points: FloatArray) -> FloatArray:
    values: FloatArray = 0.5 * (CURVATURE * np.square(points)).sum(axis=-1)
    return values


def test_published_gradient_and_step() -> None:
    direction = np.array([0.5, -1, 0.75, -0.6, 0.9, -0.8])
    base, moved = float(quadratic(POINT)), float(quadratic(POINT + 0.02 * direction))
    assert (base, moved) == pytest.approx((1.4, 1.3812535), abs=1e-8)
    gradient = compute_quotients(moved - base, direction, 0.02)
    expected = [-1.87465, 0.937325, -1.2497666667, 1.5622083333, -1.0414722222, 1.17165625]
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-8)
    updated = take_sgd_step(POINT, gradient, 5e-4, 0.4)
    expected = [0.000937325, 0.0995113375, 0.2005848833, 0.2991588958, 0.4004407361, 0.4993141719]
    np.testing.assert_allclose(updated, expected, rtol=0, atol=3e-8)  # parameters are float32
    assert updated.dtype == np.float32


def test_published_step_of_the_coefficients() -> None:
    updated = take_fresh_adamw_step(np.array([0.2, -0.1]), np.array([3, -0.2]), 0.01, 0.1)
    np.testing.assert_allclose(updated, [0.1898, -0.0899000005], rtol=0, atol=1e-10)
    still = take_fresh_adamw_step(np.array([0.2]), np.zeros(1), 0.01, 0.1)
    np.testing.assert_allclose(still, [0.2 * 0.999])


@pytest.fixture(scope="module")
def directions() -> FloatArray:
    """`[200000, 6]`."""
    drawn: FloatArray = np.concatenate([draw_segmented_direction(7, step, 0, 600) for step in range(2000)])
    return drawn.reshape(-1, 6).astype(float)


def test_directions_are_segmented_uniform(directions: FloatArray) -> None:
    sizes = np.abs(directions)
    assert 0.5 <= sizes.min() < 0.501 and 0.999 < sizes.max() <= 1
    count = directions.size
    for values, expected in (
        (directions, 0.0),
        (sizes, 0.75),
        (directions**2, 7 / 12),
        (1 / directions**2, 2.0),
    ):
        assert abs(values.mean() - expected) < 4 * values.std() / np.sqrt(count)
    correlations = np.corrcoef(directions.T)
    np.fill_diagonal(correlations, 0)
    assert np.abs(correlations).max() < 5 / np.sqrt(len(directions))


@pytest.fixture(scope="module")
def estimates(directions: FloatArray) -> FloatArray:
    rise = quadratic(POINT + 0.3 * directions) - quadratic(POINT)
    made: FloatArray = compute_quotients(1.0, directions, 0.3) * rise[:, None]
    return made


def test_one_sided_estimator_is_unbiased_on_a_quadratic(estimates: FloatArray) -> None:
    error = estimates.std(axis=0) / np.sqrt(len(estimates))
    assert (np.abs(estimates.mean(axis=0) - GRADIENT) < 4 * error).all()
    assert error.max() < 0.02 * np.abs(GRADIENT).max()  # tight enough to mean something


@pytest.mark.parametrize("samples", [2, 5])
def test_averaging_divides_the_variance(estimates: FloatArray, samples: int) -> None:
    averaged = estimates.reshape(-1, samples, 6).mean(axis=1)
    np.testing.assert_allclose(estimates.var(axis=0) / averaged.var(axis=0), samples, rtol=0.1)


def test_directions_are_a_pure_function_of_their_place() -> None:
    places = [(seed, step, sample) for seed in (0, 1) for step in (0, 1) for sample in (0, 1)]
    drawn = np.array([draw_segmented_direction(*place, 4000) for place in places], float)
    again = draw_segmented_direction(*places[3], 4000)
    assert again.dtype == np.float32 and again.astype(float).tobytes() == drawn[3].tobytes()
    correlations = np.corrcoef(drawn)
    np.fill_diagonal(correlations, 0)
    assert np.abs(correlations).max() < 5 / np.sqrt(4000)


def test_no_distance_no_quotient() -> None:
    assert not compute_quotients(3.0, np.ones(4, np.float32), 0.0).any()
