"""Monitors on predictions made up for the purpose: each speaks up when it should, and else is silent."""

from __future__ import annotations

import numpy as np
import pytest
from fozo.engine.model import FloatArray
from fozo.engine.statistics.monitor import (
    MIN_IMAGES,
    POOL_IMAGES,
    PredictionPool,
    compute_agreement,
    estimate_loss,
    has_jumped,
)


def sure(labels: object, confidence: float = 0.9, classes: int = 10) -> FloatArray:
    """Probabilities that give each label this confidence and the other classes the rest."""
    chosen = np.asarray(labels)
    probabilities = np.full((len(chosen), classes), (1 - confidence) / (classes - 1))
    probabilities[np.arange(len(chosen)), chosen] = confidence
    return probabilities


def diversity(probabilities: FloatArray) -> float:
    found = PredictionPool.of(probabilities).diversity
    assert found is not None
    return found


# --- diversity


def test_diversity_is_mutual_information_over_its_most() -> None:
    probabilities = np.random.default_rng(0).dirichlet(np.full(6, 0.3), 40)
    mean = probabilities.mean(axis=0)
    # Mutual information once more, as the mean Kullback-Leibler divergence from the mean prediction.
    information = (probabilities * np.log(probabilities / mean)).sum(axis=1).mean()
    assert diversity(probabilities) == pytest.approx(information / np.log(6))


def test_diversity_of_the_extremes() -> None:
    assert diversity(sure(range(10), 1.0)) == pytest.approx(1)
    assert diversity(sure([3] * 20)) == pytest.approx(0, abs=1e-12)  # surely one class
    assert diversity(np.full((20, 10), 0.1)) == pytest.approx(0, abs=1e-12)  # no idea of any
    assert diversity(sure(np.arange(64) % 10, 1.0)) == pytest.approx(1, abs=0.01)


def test_unsure_predictions_may_be_diverse() -> None:
    assert 0.25 < diversity(sure(np.arange(64) % 10, 0.7)) < 0.6


def test_too_little_to_judge() -> None:
    assert PredictionPool.of(sure([3] * (MIN_IMAGES - 1))).diversity is None
    assert PredictionPool.of(sure([3] * MIN_IMAGES)).diversity is not None
    assert PredictionPool.of(np.ones((20, 1))).diversity is None


def test_small_batches_are_pooled() -> None:
    labels = np.random.default_rng(0).integers(0, 10, POOL_IMAGES)
    pool = PredictionPool.empty(10)
    for label in labels:
        pool = PredictionPool.of(sure([label])).fill_from(pool)
    whole = PredictionPool.of(sure(labels))
    assert pool.images == whole.images
    np.testing.assert_allclose(pool.mean, whole.mean, rtol=1e-12)
    assert pool.entropy == pytest.approx(whole.entropy)
    for _ in range(200):
        pool = PredictionPool.of(sure([3])).fill_from(pool)
    assert pool.images == POOL_IMAGES
    assert pool.diversity == pytest.approx(0, abs=0.01)


def test_a_large_batch_speaks_for_itself() -> None:
    alike = PredictionPool.of(sure([3] * POOL_IMAGES))
    assert alike.fill_from(PredictionPool.of(sure(range(10), 1.0))) is alike
    assert alike.fill_from(PredictionPool.empty(10)) is alike


# --- jumps


def test_jumps() -> None:
    assert not has_jumped(9.0, None, 1.5)
    assert has_jumped(1.6, 1.0, 1.5) and has_jumped(1.0, 1.6, 1.5)
    assert not has_jumped(1.4, 1.0, 1.5) and not has_jumped(1.0, 1.4, 1.5)


# --- comparison with the frozen network


def test_same_predictions_cost_nothing() -> None:
    frozen = sure(range(10))
    assert estimate_loss(frozen, 7 * frozen) == 0
    assert compute_agreement(frozen, 7 * frozen) == 1


def test_contradicting_a_sure_network_costs() -> None:
    frozen, adapted = sure(range(10)), sure([1, 0, *range(2, 10)])
    right = 0.9 * 0.9  # confidence of the image, and of the batch
    assert estimate_loss(frozen, adapted) == pytest.approx(2 * (right - 0.2 * (1 - right)))
    assert compute_agreement(frozen, adapted) == pytest.approx(0.8)


def test_contradicting_an_unsure_network_is_tolerated() -> None:
    """Where all are as unsure, one network is as good as the other."""
    frozen = sure(range(10), 0.3)
    assert estimate_loss(frozen, sure((np.arange(10) + 1) % 10)) == pytest.approx(0, abs=1e-12)


def test_contradicting_where_it_is_less_sure() -> None:
    frozen = np.concatenate([sure(range(5), 0.9), sure(range(5, 10), 0.3)])
    assert estimate_loss(frozen, sure([*range(5), 6, 7, 8, 9, 5])) == pytest.approx(
        5 * (0.3 * 0.6 - 0.2 * (1 - 0.3 * 0.6))  # the batch's mean confidence is 0.6, of r it is 0.36
    )


def test_a_sure_answer_counts_less_among_unsure_ones() -> None:
    alone = sure([0], 0.9)
    among = np.concatenate([alone, sure(range(1, 10), 0.12)])
    adapted = sure([5, *range(1, 10)])
    assert 0 < estimate_loss(among, adapted) < estimate_loss(alone, sure([5])) / 4
