"""ZIP's steps against published numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from fozo.engine.errors import InputError
from fozo.engine.model import FloatArray
from fozo.engine.search.spsa import draw_segmented_direction, estimate_gradient
from fozo.engine.search.spsa_gains import PowerGains, clip_norm
from fozo.engine.tuning.low_rank_context import LowRankContext, make_low_rank_context
from fozo.engine.tuning.zip import Zip, take_gained_step

TARGET = 0.1 * np.arange(5)
# Length of the estimates, and the last values, by scale of the loss, clipping, and momentum.
VECTORS: dict[tuple[int, bool, float], tuple[list[float], list[float]]] = {
    (1, True, 0.0): (
        [0.4455910523, 0.4130434606, 0.4742605662],
        [0.5040874705, 0.4955912175, 0.5040098805, 0.4965449794, 0.5033829407],
    ),
    (100, True, 0.0): (
        [55.1848864645, 77.4233893454, 41.41019464],
        [0.4795222667, 0.5213193913, 0.4803375532, 0.5178880928, 0.4815301295],
    ),
    (1, False, 0.8): ([], [0.5095147476, 0.4897677861, 0.5092962448, 0.4919656102, 0.5078842913]),
}
SPACE = make_low_rank_context((2, 16), 1, 12, 2)
START = 0.02 * np.random.default_rng(0).normal(size=(2, 16)).astype(np.float32)
GOAL = np.random.default_rng(1).normal(size=(2, 16))


def draw_published_directions(t: int) -> FloatArray:
    """Return the two directions of step t of vector Z2, by their formula."""
    return np.array(
        [
            [
                (0.75 + 0.25 * math.sin(1 + 3 * t + 2 * j + i)) * (1 if (i + t + j) % 2 == 0 else -1)
                for i in range(5)
            ]
            for j in range(2)
        ]
    )


@pytest.mark.parametrize(("scale", "clip", "momentum"), VECTORS)
def test_steps_have_the_published_numbers(scale: int, clip: bool, momentum: float) -> None:
    gains, values, velocity, norms = PowerGains(), np.full(5, 0.5), np.zeros(5), []

    def losses(points: FloatArray) -> FloatArray:
        result: FloatArray = scale * 0.5 * np.square(points - TARGET).sum(1) + np.cos(points).sum(1)
        return result

    for t in range(1, 4):
        directions = draw_published_directions(t)
        _, gradient = estimate_gradient(values, directions, gains.get_size(t), losses)
        norms.append(np.linalg.norm(gradient))
        gradient = clip_norm(gradient) if clip else gradient
        values, velocity = take_gained_step(values, velocity, gradient, gains.get_rate(t), momentum)
        if (scale, t) == (100, 1):
            first = [0.4910532867, 0.5085352497, 0.4931441066, 0.5061599702, 0.4929763319]
            np.testing.assert_allclose(values, first, rtol=1e-9)
    expected_norms, expected_values = VECTORS[scale, clip, momentum]
    np.testing.assert_allclose(norms[: len(expected_norms)], expected_norms, rtol=1e-9)
    np.testing.assert_allclose(values, expected_values, rtol=1e-9)


def losses(contexts: FloatArray) -> FloatArray:
    result: FloatArray = np.square(contexts.astype(np.float64) - GOAL).sum((1, 2))
    return result


def test_the_loss_falls_and_a_step_asks_once_for_all_candidates() -> None:
    method, sizes, records = Zip(SPACE, PowerGains(rate=0.05), pairs=3), [], []

    def count(contexts: FloatArray) -> FloatArray:
        sizes.append(contexts.shape)
        return losses(contexts)

    state = method.init(START, 1)
    np.testing.assert_array_equal(state.values, START)
    for _ in range(60):
        state, record = method.step(state, count)
        records.append(record)
    assert sizes == [(6, 2, 16)] * 60
    assert method.losses_per_step == 6
    assert records[-1].loss < 0.95 * records[0].loss
    assert state.step == 60 and state.parameters.shape == (SPACE.size,)
    assert all(record.sharpness == 0 for record in records)


@pytest.mark.parametrize(
    ("clip", "momentum"), [(True, 0.0), (False, 0.0), (False, 0.8)], ids=["spsa-clip", "spsa", "spsa-gc"]
)
def test_steps_follow_the_equations(clip: bool, momentum: float) -> None:
    """Every candidate on its own, and momentum as the official code writes it, with a first step apart."""
    method = Zip(SPACE, pairs=2, clip=clip, momentum=momentum)
    state = method.init(START, 5)
    parameters, average = SPACE.draw_parameters(5), np.zeros(SPACE.size)
    for t in range(1, 5):
        estimates, rate, size = [], 0.01 / (t + 1) ** 0.4, 0.01 / t**0.1
        for pair in range(2):
            direction = draw_segmented_direction(5, t - 1, pair, SPACE.size).astype(np.float64)
            points = [parameters + size * direction, parameters - size * direction]
            plus, minus = (losses(SPACE.compute_contexts(point[None], START))[0] for point in points)
            estimates.append((plus - minus) / (2 * size * direction))
        gradient = np.mean(estimates, axis=0)
        if clip and np.linalg.norm(gradient) >= math.sqrt(SPACE.size):
            gradient *= math.sqrt(SPACE.size) / np.linalg.norm(gradient)
        average = gradient if t == 1 else momentum * average + gradient
        parameters = parameters - rate * (gradient + momentum * average)
        state, record = method.step(state, losses)
        np.testing.assert_allclose(state.parameters, parameters, rtol=1e-9, atol=1e-12)
        assert record.gradient_norm == pytest.approx(np.linalg.norm(np.mean(estimates, axis=0)))


def test_steps_are_a_function_of_the_state() -> None:
    method = Zip(SPACE)
    state = method.init(START, 5)
    before = state.parameters.copy()
    first, again = method.step(state, losses)[0], method.step(state, losses)[0]
    np.testing.assert_array_equal(first.parameters, again.parameters)
    np.testing.assert_array_equal(state.parameters, before)
    other = method.step(method.init(START, 6), losses)[0]
    assert not np.array_equal(first.values, other.values)


@pytest.mark.parametrize("options", [{"pairs": 0}, {"momentum": 1.0}, {"gains": PowerGains(size=0)}])
def test_values_without_meaning(options: dict[str, int]) -> None:
    with pytest.raises(InputError, match="expected one pair at least"):
        Zip(LowRankContext(np.zeros((1, 2, 1)), 1), **options)  # type: ignore[arg-type]
