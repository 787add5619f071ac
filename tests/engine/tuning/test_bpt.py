"""BPT's generations against the package `cma`, and its choice of the best solution."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fozo.engine.errors import InputError
from fozo.engine.model import FloatArray
from fozo.engine.tuning import bpt
from fozo.engine.tuning.bpt import Bpt, BptState, compute_contexts, draw_projection

SHAPE, DIMENSION = (2, 3), 5
PROJECTION = draw_projection(1, SHAPE, DIMENSION, std=0.5, sigma=1.0)
START = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
GOAL = np.random.default_rng(1).normal(size=SHAPE)


def losses(contexts: FloatArray) -> FloatArray:
    """Return losses of two batches, which pull to either side of the goal."""
    columns = [np.square(contexts - GOAL + side).sum((1, 2)) for side in (0.1, -0.1)]
    return np.stack(columns, axis=1)


def test_generations_are_those_of_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package draws the solutions, and is told their losses from contexts that are computed here."""
    package = pytest.importorskip("cma", reason="the reference is the package cma")
    settings = {"popsize": 8, "verbose": -9, "seed": 5, "CSA_squared": False}
    theirs = package.CMAEvolutionStrategy(DIMENSION * [0.0], 1.0, settings)
    drawn: list[FloatArray] = []

    def ask_package(*arguments: Any) -> FloatArray:
        drawn.append(np.stack(theirs.ask()))
        return drawn[-1]

    monkeypatch.setattr(bpt, "ask", ask_package)
    method = Bpt(PROJECTION, population=8, covariance="full")
    state = method.init(START, 3)
    for _ in range(12):
        state, record = method.step(state, losses)
        moves = np.einsum("wn,cn->cw", PROJECTION.astype(np.float64), drawn[-1])
        fitness = losses((START + moves.reshape(-1, *SHAPE)).astype(np.float32)).mean(1)
        assert record.loss == pytest.approx(fitness.mean())
        theirs.tell(list(drawn[-1]), fitness.tolist())
        # The first covariance of the package is off the identity by 0.0002, against ties.
        np.testing.assert_allclose(state.search.mean, theirs.mean, atol=1e-3)
        assert state.search.sigma == pytest.approx(theirs.sigma, rel=1e-3)
    assert np.abs(theirs.mean).max() > 0.3


def test_the_best_context_of_all_generations_is_kept() -> None:
    method, best = Bpt(PROJECTION, population=6), []

    def watch(contexts: FloatArray) -> FloatArray:
        by_batch = losses(contexts)
        best.extend(zip(by_batch.mean(1).tolist(), contexts, strict=True))
        return by_batch

    state = method.init(START, 3)
    np.testing.assert_array_equal(state.values, START)
    for _ in range(25):
        state, _ = method.step(state, watch)
    loss, context = min(best, key=lambda entry: entry[0])
    assert (state.best_loss, len(best)) == (loss, 25 * method.losses_per_step)
    np.testing.assert_array_equal(state.values, context)
    assert loss < 0.5 * losses(START[None]).mean()


@pytest.mark.parametrize(("first_batches", "winner"), [(False, 1), (True, 0)])
def test_a_lucky_first_batch_wins_only_where_running_means_count(first_batches: bool, winner: int) -> None:
    method = Bpt(PROJECTION, population=3, first_batches=first_batches)
    contexts: list[FloatArray] = []

    def fixed(candidates: FloatArray) -> FloatArray:
        contexts.append(candidates)
        return np.array([[0.5, 9.0], [1.0, 1.0], [2.0, 2.0]])

    state, _ = method.step(method.init(START, 3), fixed)
    np.testing.assert_array_equal(state.values, contexts[0][winner])
    assert state.best_loss == (0.5 if first_batches else 1.0)


def test_first_contexts_spread_like_token_embeddings() -> None:
    projection = draw_projection(1, (4, 50), 400, std=0.3, sigma=2.0)
    solutions = 2.0 * np.random.default_rng(0).normal(size=(30, 400))
    contexts = compute_contexts(projection, solutions, np.zeros((4, 50), np.float32))
    assert contexts.dtype == np.float32
    assert contexts.std() == pytest.approx(0.3, rel=0.05)


def test_steps_are_a_function_of_the_state() -> None:
    method = Bpt(PROJECTION)
    state = method.init(START, 5)
    first, again = method.step(state, losses)[0], method.step(state, losses)[0]
    assert isinstance(first, BptState)
    np.testing.assert_array_equal(first.search.mean, again.search.mean)
    np.testing.assert_array_equal(state.search.mean, np.zeros(DIMENSION))
    assert not np.array_equal(first.search.mean, method.step(method.init(START, 6), losses)[0].search.mean)


@pytest.mark.parametrize("options", [{"population": 1}, {"sigma": 0.0}])
def test_values_without_meaning(options: dict[str, int]) -> None:
    with pytest.raises(InputError, match="expected two solutions at least"):
        Bpt(PROJECTION, **options)
