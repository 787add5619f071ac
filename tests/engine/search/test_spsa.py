"""The SPSA estimator (docs/specification.md §12.2), and the invariants of FOZO that follow (§12.3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from doubles import draw_images, step_on
from fozo.engine.methods.fozo import Fozo, FozoState
from fozo.engine.model import FloatArray
from fozo.engine.search import spsa
from fozo.engine.search.spsa import compute_directional_slope, descend, draw_gaussian_direction, draw_uniform
from fozo.engine.streams.adapter import Adapter

StandIn = Callable[..., Any]

# TV-2
CURVATURE = np.arange(1.0, 7.0)
POINT = 0.1 * np.arange(6)
GRADIENT = CURVATURE * POINT
DIRECTION = np.array([1, -1, 2, 0.5, -0.5, 1.5])


def quadratic(points: FloatArray) -> FloatArray:
    values: FloatArray = 0.5 * (CURVATURE * np.square(points)).sum(axis=-1)
    return values


def same_state(left: FozoState, right: FozoState) -> bool:
    """Bit for bit."""
    assert left.center is not None and right.center is not None
    return (
        left.prompts.tobytes() == right.prompts.tobytes()
        and left.center.tobytes() == right.center.tobytes()
        and (left.step, left.seed, left.schedule) == (right.step, right.seed, right.schedule)
    )


# --- the estimator


@pytest.mark.parametrize("epsilon", [1e-4, 0.02, 0.2, 0.5, 1.0, 30.0])
def test_slope_is_exact_on_a_quadratic_for_every_epsilon(epsilon: float) -> None:
    plus, minus = (float(quadratic(POINT + sign * epsilon * DIRECTION)) for sign in (1, -1))
    slope = compute_directional_slope(plus, minus, epsilon)
    assert slope == pytest.approx(5.1, abs=1e-8)
    assert slope == pytest.approx(float(DIRECTION @ GRADIENT), abs=1e-8)


def test_update() -> None:
    updated = descend(POINT, [DIRECTION], [5.1], 0.156)
    np.testing.assert_allclose(
        updated, [-0.7956, 0.8956, -1.3912, -0.0978, 0.7978, -0.6934], rtol=0, atol=1.2e-7
    )  # prompts are float32
    assert updated.dtype == np.float32
    exact = POINT - 0.156 * 5.1 * DIRECTION
    assert np.array_equal(updated, exact.astype(np.float32))  # rounded once, at the end


def test_update_averages_the_samples() -> None:
    generator = np.random.default_rng(0)
    directions = [generator.normal(size=(3, 2)).astype(np.float32) for _ in range(4)]
    slopes = [1.0, -2.0, 0.5, 3.0]
    values = generator.normal(size=(3, 2)).astype(np.float32)
    expected = values - 0.2 * np.mean([g * z for g, z in zip(slopes, directions, strict=True)], axis=0)
    before = values.copy()
    np.testing.assert_allclose(descend(values, directions, slopes, 0.2), expected, rtol=1e-6)
    assert np.array_equal(values, before)


def test_slope_without_a_perturbation_is_zero() -> None:
    assert compute_directional_slope(3.0, 3.0, 0.0) == 0.0
    assert compute_directional_slope(3.0, 2.0, 0.0) == 0.0


def test_slope_tends_to_the_directional_derivative() -> None:
    def loss(point: FloatArray) -> float:
        return float(np.sin(point).sum() + np.exp(point[0]))

    exact = float(DIRECTION @ np.cos(POINT) + DIRECTION[0] * np.exp(POINT[0]))
    errors = [
        abs(compute_directional_slope(loss(POINT + e * DIRECTION), loss(POINT - e * DIRECTION), e) - exact)
        for e in (0.1, 0.05, 0.025)
    ]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.05)  # second order
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.05)


@pytest.fixture(scope="module")
def estimates() -> FloatArray:
    """Gradient estimates `[200000, 6]` from 2000 directions of the engine, each of 100 independent rows."""
    z = np.concatenate([draw_gaussian_direction(2000, step, 0, (100, 6)) for step in range(2000)]).astype(
        float
    )
    slopes = (quadratic(POINT + 0.5 * z) - quadratic(POINT - 0.5 * z)) / (2 * 0.5)
    made: FloatArray = slopes[:, None] * z
    return made


def test_estimator_is_unbiased(estimates: FloatArray) -> None:
    error = estimates.std(axis=0) / np.sqrt(len(estimates))
    assert len(estimates) >= 2e5
    assert (np.abs(estimates.mean(axis=0) - GRADIENT) < 4 * error).all()
    assert error.max() < 0.02 * np.abs(GRADIENT).max()  # tight enough to mean something


def test_second_moment_of_the_estimator(estimates: FloatArray) -> None:
    squares = np.square(estimates).sum(axis=1)
    expected = (6 + 2) * float(GRADIENT @ GRADIENT)
    assert abs(squares.mean() - expected) < 4 * squares.std() / np.sqrt(len(squares))


@pytest.mark.parametrize("samples", [2, 5, 10])
def test_averaging_divides_the_variance(estimates: FloatArray, samples: int) -> None:
    averaged = estimates.reshape(-1, samples, 6).mean(axis=1)
    ratio = estimates.var(axis=0) / averaged.var(axis=0)
    np.testing.assert_allclose(ratio, samples, rtol=0.1)


# --- randomness


def test_directions_are_standard_normal() -> None:
    z = np.concatenate([draw_gaussian_direction(1, step, 0, (3, 64)).ravel() for step in range(500)]).astype(
        float
    )
    assert abs(z.mean()) < 4 / np.sqrt(z.size)
    assert abs(z.var() - 1) < 4 * np.sqrt(2 / z.size)
    assert abs((z**4).mean() - 3) < 4 * np.sqrt(96 / z.size)


def test_directions_are_a_pure_function_of_their_place() -> None:
    first = draw_gaussian_direction(5, 3, 1, (3, 8))
    np.random.default_rng(0).normal(size=100)
    assert draw_gaussian_direction(5, 3, 1, (3, 8)).tobytes() == first.tobytes()
    assert (first.dtype, first.shape) == (np.float32, (3, 8))


def test_directions_of_different_places_are_unrelated() -> None:
    places = [(seed, step, sample) for seed in (0, 1, 2) for step in (0, 1, 2) for sample in (0, 1, 2)]
    drawn = np.array([draw_gaussian_direction(*place, (4000,)) for place in places], float)
    start = np.array([draw_uniform(seed, 1.0, (4000,)) for seed in (0, 1, 2)], float)
    correlations = np.corrcoef(np.concatenate([drawn, start]))
    np.fill_diagonal(correlations, 0)
    assert np.abs(correlations).max() < 5 / np.sqrt(4000)


def test_initial_prompts_are_uniform_within_their_bound() -> None:
    values = draw_uniform(2000, 0.0625, (1000, 50))
    assert values.dtype == np.float32
    assert np.abs(values).max() <= 0.0625
    assert np.abs(values).max() > 0.0624
    assert abs(values.astype(float).mean()) < 4 * 0.0625 / np.sqrt(3 * values.size)
    assert values.astype(float).var() == pytest.approx(0.0625**2 / 3, rel=0.02)


# --- FOZO's step


@pytest.mark.parametrize(
    ("changes", "expected"), [({}, 2), ({"samples": 3}, 6), ({"samples": 14}, 28), ({"output": "clean"}, 3)]
)
def test_forwards_are_counted(stand_in: StandIn, changes: dict[str, Any], expected: int) -> None:
    network, method = stand_in(), replace(Fozo(), **changes)
    state = method.bind(network.info).init(0)
    assert network.forwards == 0
    for count in (1, 2):
        prediction, state = step_on(network, method, state, draw_images(4))
        assert network.forwards == count * expected
        assert prediction.forwards == method.forwards == expected


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("output", ["best", "mean"])
def test_swapping_plus_and_minus_changes_nothing(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, samples: int, output: Any
) -> None:
    method, network = Fozo(samples=samples, output=output), stand_in()
    state = method.bind(network.info).init(3)
    slopes = []
    for batch in range(6):
        usual, following = step_on(network, method, state, draw_images(5, batch))
        with monkeypatch.context() as patch:
            patch.setattr(spsa, "draw_gaussian_direction", lambda *place: -draw_gaussian_direction(*place))
            swapped, other = step_on(network, method, state, draw_images(5, batch))
        assert swapped.loss == usual.loss
        assert swapped.diagnostics["slope"] == -usual.diagnostics["slope"]
        if output == "best":
            assert swapped.logits.tobytes() == usual.logits.tobytes()
        else:
            np.testing.assert_allclose(swapped.logits, usual.logits, rtol=1e-12)
        assert other.prompts.tobytes() == following.prompts.tobytes()
        slopes.append(usual.diagnostics["slope"])
        state = following
    assert any(slopes)


def test_a_rate_of_zero_leaves_the_prompts_bit_for_bit(stand_in: StandIn) -> None:
    network = stand_in()
    method = Fozo(rate=0.0, rate_min=0.0, rate_max=0.0, rate_increase=0.0)
    state = method.bind(network.info).init(0)
    before = state.prompts.tobytes()
    for batch in range(100):
        prediction, state = step_on(network, method, state, draw_images(3, batch))
        assert prediction.diagnostics["slope"] != 0
        assert state.prompts.tobytes() == before


def test_an_epsilon_of_zero_compares_equals(stand_in: StandIn) -> None:
    network, method = stand_in(), Fozo(epsilon=0.0, epsilon_min=0.0)
    state = method.bind(network.info).init(0)
    prediction, following = step_on(network, method, state, draw_images(4))
    still = network(draw_images(4), prompts=state.prompts[None])
    assert prediction.logits.tobytes() == still.logits.tobytes()
    assert prediction.diagnostics["slope"] == 0
    assert following.prompts.tobytes() == state.prompts.tobytes()


def test_the_candidate_of_smallest_loss_is_returned(stand_in: StandIn) -> None:
    network, method = stand_in(), Fozo(samples=4)
    state = method.bind(network.info).init(1)
    batch = draw_images(6)
    prediction, _ = step_on(network, method, state, batch)
    alone = []
    for j in range(4):
        for sign in (1, -1):
            z = draw_gaussian_direction(1, 0, j, state.prompts.shape)
            # A single candidate of zero perturbation has this loss and these logits.
            only = replace(
                state,
                schedule=state.schedule._replace(epsilon=0.0),
                prompts=state.prompts + sign * np.float32(0.5) * z,
            )
            alone.append(step_on(network, Fozo(), only, batch)[0])
    best = min(alone, key=lambda each: each.loss or 0.0)
    assert prediction.loss == best.loss
    assert prediction.logits.tobytes() == best.logits.tobytes()
    assert len({each.loss for each in alone}) == 8


def test_a_permutation_of_the_images_permutes_the_logits(stand_in: StandIn) -> None:
    network, method = stand_in(), Fozo(samples=2)
    order = np.random.default_rng(0).permutation(7)
    straight = permuted = method.bind(network.info).init(0)
    for batch in range(5):
        given = draw_images(7, batch)
        usual, straight = step_on(network, method, straight, given)
        other, permuted = step_on(network, method, permuted, given[order])
        np.testing.assert_allclose(other.logits, usual.logits[order], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(permuted.prompts, straight.prompts, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(permuted.center, straight.center, rtol=1e-9)
        assert permuted.schedule.loss_average == pytest.approx(straight.schedule.loss_average, rel=1e-6)


def test_a_duplicated_batch(stand_in: StandIn) -> None:
    network, method = stand_in(), Fozo(discrepancy_weight=0.0)
    state = method.bind(network.info).init(0)
    once, after_once = step_on(network, method, state, draw_images(5))
    twice, after_twice = step_on(network, method, state, draw_images(5).repeat(2, axis=0))
    assert once.loss is not None
    assert twice.loss == pytest.approx(2 * once.loss, rel=1e-12)  # the entropies are summed
    np.testing.assert_allclose(after_twice.center, after_once.center, rtol=1e-12)  # the mean is the same
    np.testing.assert_allclose(twice.logits, once.logits.repeat(2, axis=0), rtol=1e-12)
    moved_once, moved_twice = (after.prompts - state.prompts for after in (after_once, after_twice))
    np.testing.assert_allclose(moved_twice, 2 * moved_once, rtol=1e-4, atol=1e-7)


def test_a_duplicated_batch_takes_the_same_step_per_image(stand_in: StandIn) -> None:
    network = stand_in()
    method = Fozo(discrepancy_weight=0.0, loss_scale="per_image")
    state = method.bind(network.info).init(0)
    once, after_once = step_on(network, method, state, draw_images(5))
    twice, after_twice = step_on(network, method, state, draw_images(5).repeat(2, axis=0))
    assert twice.loss == pytest.approx(once.loss, rel=1e-12)
    np.testing.assert_allclose(after_twice.prompts, after_once.prompts, rtol=1e-5, atol=1e-7)


def test_reset_restores_everything(stand_in: StandIn) -> None:
    adapter = Adapter(stand_in(), Fozo(), seed=8)
    fresh = adapter.state
    assert isinstance(fresh, FozoState)
    first = [adapter.step(draw_images(5, batch)).logits for batch in range(6)]
    used = adapter.state
    assert isinstance(used, FozoState)
    assert not np.array_equal(used.prompts, fresh.prompts)
    assert used.schedule.loss_average is not None and used.center is not None
    adapter.reset()
    again = adapter.state
    assert isinstance(again, FozoState)
    assert again.prompts.tobytes() == fresh.prompts.tobytes()
    assert (again.step, again.schedule.epsilon, again.schedule.rate) == (0, 0.5, 0.08)
    assert again.schedule.loss_average is None and again.center is None
    second = [adapter.step(draw_images(5, batch)).logits for batch in range(6)]
    assert all(left.tobytes() == right.tobytes() for left, right in zip(first, second, strict=True))


def test_epsilon_in_use_is_the_one_before_the_adjustment(stand_in: StandIn) -> None:
    """§6.4, steps 2, 5 and 8: the update combines the new rate with slopes at the old epsilon."""
    network, method = stand_in(), Fozo(discrepancy_weight=0.0)
    state = method.bind(network.info).init(2)
    for batch in range(4):
        prediction, following = step_on(network, method, state, draw_images(5, batch))
        z = draw_gaussian_direction(2, state.step, 0, state.prompts.shape)
        expected = descend(state.prompts, [z], [prediction.diagnostics["slope"]], following.schedule.rate)
        assert following.prompts.tobytes() == expected.tobytes()
        assert prediction.diagnostics["epsilon"] == state.schedule.epsilon
        assert prediction.diagnostics["rate"] == following.schedule.rate
        state = following


def test_states_are_values(stand_in: StandIn) -> None:
    """Two steps from one state agree, and the state that was passed in is as it was."""
    network, method = stand_in(), Fozo()
    state = method.bind(network.info).init(0)
    _, state = step_on(network, method, state, draw_images(5))
    prompts = state.prompts.copy()
    _, left = step_on(network, method, state, draw_images(5, 1))
    _, right = step_on(network, method, state, draw_images(5, 1))
    assert same_state(left, right)
    assert not same_state(left, state)
    assert np.array_equal(state.prompts, prompts)
