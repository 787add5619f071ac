"""SAPT from losses alone, and gains and clipping against published numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from fozo.engine.errors import InputError
from fozo.engine.model import FloatArray
from fozo.engine.search.spsa import compute_quotients, draw_segmented_direction
from fozo.engine.search.spsa_gains import PowerGains, clip_norm
from fozo.engine.tuning.zo_sapt import ZoSapt

MATRIX = np.random.default_rng(0).normal(size=(6, 6))
MATRIX = MATRIX @ MATRIX.T / 6
START = np.random.default_rng(1).normal(size=(2, 3)).astype(np.float32)


def losses(candidates: FloatArray) -> FloatArray:
    flat = candidates.reshape(len(candidates), -1).astype(np.float64)
    result: FloatArray = 0.5 * np.einsum("ci,ij,cj->c", flat, MATRIX, flat)
    return result


def test_the_direction_tends_to_that_of_gradients() -> None:
    """Of a quadratic form, `∇ℓ(p + ρ g / ‖g‖) = A p + ρ A · A p / ‖A p‖`."""
    method = ZoSapt(PowerGains(rate=1, size=1e-2, offset=0, rate_power=0), pairs=4000, radius=0.5, clip=False)
    state, record = method.step(method.init(START, 3), losses)
    slope = MATRIX @ START.astype(np.float64).ravel()
    expected = slope + 0.5 * MATRIX @ slope / np.linalg.norm(slope)
    difference = (START - state.values).ravel() - expected
    assert np.linalg.norm(difference) < 0.1 * np.linalg.norm(expected)
    assert record.gradient_norm == pytest.approx(np.linalg.norm(slope), rel=0.1)
    assert record.sharpness == pytest.approx(0.5 * np.linalg.norm(slope), rel=0.5)


def test_without_sharpness_it_is_the_mean_of_two_sided_estimates() -> None:
    gains = PowerGains()
    method = ZoSapt(gains, pairs=3, sharpness=0, clip=False)
    state = method.init(START, 7)
    calls: list[FloatArray] = []

    def record_candidates(candidates: FloatArray) -> FloatArray:
        calls.append(candidates)
        return losses(candidates)

    for step in range(3):
        before = state.values.astype(np.float64)
        estimates = []
        for pair in range(3):
            direction = draw_segmented_direction(7, step, pair, 6).reshape(2, 3).astype(np.float64)
            size = gains.get_size(step + 1)
            plus, minus = losses(np.stack([before + size * direction, before - size * direction]))
            estimates.append((plus - minus) / (2 * size) / direction)
        state, _ = method.step(state, record_candidates)
        expected = before - gains.get_rate(step + 1) * np.mean(estimates, axis=0)
        np.testing.assert_allclose(state.values, expected, rtol=1e-4)
    assert [candidates.shape for candidates in calls] == [(6, 2, 3)] * 3


@pytest.mark.parametrize(
    ("options", "calls", "count"), [({}, 2, 12), ({"radius": 0.0}, 1, 6), ({"sharpness": 0.0}, 1, 6)]
)
def test_all_candidates_of_a_round_come_in_one_call(
    options: dict[str, float], calls: int, count: int
) -> None:
    sizes: list[int] = []

    def count_candidates(candidates: FloatArray) -> FloatArray:
        sizes.append(len(candidates))
        return losses(candidates)

    method = ZoSapt(pairs=3, **options)
    method.step(method.init(START, 0), count_candidates)
    assert sizes == [6] * calls
    assert method.losses_per_step == sum(sizes) == count


def test_the_directions_of_both_rounds_differ() -> None:
    points: list[FloatArray] = []

    def keep(candidates: FloatArray) -> FloatArray:
        points.append(candidates)
        return losses(candidates)

    method = ZoSapt(pairs=1)
    method.step(method.init(START, 0), keep)
    first, second = (candidates[0] - candidates[1] for candidates in points)
    assert not np.allclose(first, second)


def test_steps_are_a_function_of_the_state() -> None:
    method = ZoSapt()
    state = method.init(START, 5)
    before = state.values.copy()
    first, again = method.step(state, losses)[0], method.step(state, losses)[0]
    np.testing.assert_array_equal(first.values, again.values)
    np.testing.assert_array_equal(state.values, before)
    assert first.step == 1
    assert not np.array_equal(first.values, method.step(method.init(START, 6), losses)[0].values)


@pytest.mark.parametrize("options", [{"pairs": 0}, {"sharpness": -1.0}, {"gains": PowerGains(size=0)}])
def test_values_without_meaning(options: dict[str, int]) -> None:
    with pytest.raises(InputError, match="expected"):
        ZoSapt(**options)  # type: ignore[arg-type]


TARGET = 0.1 * np.arange(5)
# Length of the estimates of three steps, and the last values, at two scales of the loss.
SPSA_VECTORS = {
    1: (
        [0.4455910523, 0.4130434606, 0.4742605662],
        [0.5040874705, 0.4955912175, 0.5040098805, 0.4965449794, 0.5033829407],
    ),
    100: (
        [55.1848864645, 77.4233893454, 41.41019464],
        [0.4795222667, 0.5213193913, 0.4803375532, 0.5178880928, 0.4815301295],
    ),
}


@pytest.mark.parametrize("scale", SPSA_VECTORS)
def test_gains_quotients_and_clipping_against_an_independent_computation(scale: int) -> None:
    """Vector Z2: directions by a formula, two estimates for each of three steps, clipped at √5."""
    gains, values, norms = PowerGains(), np.full(5, 0.5), []

    def loss(point: FloatArray) -> float:
        return float(scale * 0.5 * np.square(point - TARGET).sum() + np.cos(point).sum())

    for t in range(1, 4):
        size, estimates = gains.get_size(t), []
        for j in range(2):
            signs = [1 if (i + t + j) % 2 == 0 else -1 for i in range(5)]
            sizes = [0.75 + 0.25 * math.sin(1 + 3 * t + 2 * j + i) for i in range(5)]
            direction = np.multiply(signs, sizes)
            difference = loss(values + size * direction) - loss(values - size * direction)
            estimates.append(compute_quotients(difference, direction, 2 * size))
        gradient = np.mean(estimates, axis=0)
        norms.append(np.linalg.norm(gradient))
        values = values - gains.get_rate(t) * clip_norm(gradient)
    np.testing.assert_allclose(norms, SPSA_VECTORS[scale][0], rtol=1e-9)
    np.testing.assert_allclose(values, SPSA_VECTORS[scale][1], rtol=1e-9)


def test_gradients_are_clipped_from_the_root_of_their_size() -> None:
    limit = math.sqrt(417)
    long, exact = np.full(417, 2.0), np.full(417, 1.0)
    assert np.linalg.norm(clip_norm(long)) == pytest.approx(limit)
    np.testing.assert_allclose(clip_norm(long), 1)
    np.testing.assert_allclose(clip_norm(exact), 1)
    short = np.full(417, 0.999)
    assert clip_norm(short) is short
