"""The two terms of the adaptation loss: entropy of the predictions, and distance to the source statistics.

Differences of nearly equal losses become gradients, so everything here is computed in float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

import numpy as np

from .model import FloatArray, SourceStatistics

DiscrepancyNorm = Literal["squared", "mean_squared", "l2_per_layer", "l2_groups"]


def log_softmax(logits: FloatArray) -> FloatArray:
    """Natural log-probabilities, float64 `[N, K]`, of `logits` `[N, K]`."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return cast(FloatArray, shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def softmax(logits: FloatArray) -> FloatArray:
    """Probabilities, float64 `[N, K]`, of `logits` `[N, K]`."""
    return cast(FloatArray, np.exp(log_softmax(logits)))


def entropy(logits: FloatArray) -> FloatArray:
    """Shannon entropy of each prediction in nats, float64 `[N]`, of `logits` `[N, K]`."""
    log_probabilities = log_softmax(logits)
    return cast(FloatArray, -(np.exp(log_probabilities) * log_probabilities).sum(axis=-1))


@dataclass(frozen=True)
class BatchStatistics:
    """Mean and unbiased standard deviation of a batch of features.

    Attributes:
        mean: float64 `[L, F]`.
        std: float64 `[L, F]`, or None for a batch of one image, where it is undefined.
    """

    mean: FloatArray
    std: FloatArray | None


def batch_statistics(features: FloatArray) -> BatchStatistics:
    """Statistics of `features` `[N, L, F]` over its images, as all methods of the family define them."""
    features = features.astype(np.float64)
    mean = features.mean(axis=0)
    if len(features) < 2:
        return BatchStatistics(mean, None)
    centred = features - mean
    return BatchStatistics(mean, np.sqrt(np.einsum("nlf,nlf->lf", centred, centred) / (len(features) - 1)))


def discrepancy(batch: BatchStatistics, source: SourceStatistics, norm: DiscrepancyNorm = "squared") -> float:
    """Distance of batch statistics to source statistics.

    A batch of one image has no standard deviation: only its mean counts then.

    Args:
        batch: statistics of the batch, `[L, F]`.
        source: statistics of clean images, `[L, F]`.
        norm: `squared`, the sum of squared differences over all coordinates (official code of FOA and
            FOZO); `mean_squared`, the mean instead of the sum (official code of ZOA); `l2_per_layer`, the
            sum over layers of L2 norms (FOA paper, its discrepancy term); `l2_groups`, the sum of L2 norms
            over the shallow and the deep half of the layers (FOZO paper).
    """
    total = _distance(batch.mean - source.mean, norm)
    return total if batch.std is None else total + _distance(batch.std - source.std, norm)


def _distance(difference: FloatArray, norm: DiscrepancyNorm) -> float:
    squares = np.square(difference)
    if norm == "squared":
        return float(squares.sum())
    if norm == "mean_squared":
        return float(squares.mean())
    per_layer = squares.sum(axis=1)
    if norm == "l2_per_layer":
        return float(np.sqrt(per_layer).sum())
    half = len(per_layer) // 2
    return float(np.sqrt(per_layer[:half].sum()) + np.sqrt(per_layer[half:].sum()))
