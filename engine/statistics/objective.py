"""The two terms of the adaptation loss: entropy of the predictions, and distance to the source statistics.

Differences of nearly equal losses become gradients, so everything here is computed in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import numpy as np

from ..model import FloatArray, Outputs, SourceStatistics
from .feature_statistics import Moments

REFERENCE_BATCH = 64
LossScale = Literal["sum", "per_image"]
DiscrepancyNorm = Literal["squared", "mean_squared", "l2_per_layer", "l2_groups"]


def log_softmax(logits: FloatArray) -> FloatArray:
    """Return natural log-probabilities, float64 `[N, K]`, of `logits` `[N, K]`.

    >>> print(log_softmax(np.log([[1.0, 3.0]])).round(4))
    [[-1.3863 -0.2877]]
    """
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return cast(FloatArray, shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def softmax(logits: FloatArray) -> FloatArray:
    """Return probabilities, float64 `[N, K]`, of `logits` `[N, K]`.

    >>> print(softmax(np.log([[1.0, 3.0]])).round(4))
    [[0.25 0.75]]
    """
    return cast(FloatArray, np.exp(log_softmax(logits)))


def entropy(logits: FloatArray) -> FloatArray:
    """Return the Shannon entropy of each prediction in nats, float64 `[N]`, of `logits` `[N, K]`.

    With `p = e^s / t` it is `log t − Σ s e^s / t`: one exponential per value, and no log of a probability.

    >>> print(entropy(np.array([[0.0, 0.0], [0.0, 100.0]])).round(4))
    [0.6931 0.    ]
    """
    shifted = logits - logits.max(axis=-1, keepdims=True).astype(np.float64)
    weights = np.exp(shifted)
    total = weights.sum(axis=-1)
    return cast(FloatArray, np.log(total) - np.einsum("nk,nk->n", weights, shifted) / total)


def compute_discrepancy(
    moments: Moments,
    source: SourceStatistics,
    norm: DiscrepancyNorm = "squared",
    widths: Sequence[int] = (),
) -> float:
    """Return the distance of the mean and unbiased standard deviation of features to the source statistics.

    A single image has no standard deviation: only its mean counts then.

    Args:
        moments: of features `[N, L, F]` over images: those of the batch, and of a window before it.
        source: statistics of clean images, `[L, F]`.
        norm: `squared`, the sum of squared differences over all coordinates (official code of FOA and
            FOZO); `mean_squared`, the mean over layers of their mean (official code of ZOA); `l2_per_layer`,
            the sum over layers of L2 norms (FOA paper, its discrepancy term); `l2_groups`, the sum of L2
            norms over the shallow and the deep half of the layers (FOZO paper).
        widths: coordinates of each layer that are features and not padding; none given: all of them.

    >>> source = SourceStatistics(np.zeros((1, 2)), np.ones((1, 2)), images=100)
    >>> moments = Moments.of(np.array([[[0.0, 2.0]], [[2.0, 4.0]]]))  # mean 1 and 3, std √2 twice
    >>> round(compute_discrepancy(moments, source), 4)
    10.3431
    """
    total = _compute_distance(moments.mean - source.mean, norm, widths)
    return total if moments.std is None else total + _compute_distance(moments.std - source.std, norm, widths)


def _compute_distance(difference: FloatArray, norm: DiscrepancyNorm, widths: Sequence[int]) -> float:
    squares = np.square(difference)
    if norm == "squared":
        return float(squares.sum())
    per_layer = squares.sum(axis=1)  # what is padding is zero on both sides
    if norm == "mean_squared":
        return float((per_layer / (np.asarray(widths) if widths else squares.shape[1])).mean())
    if norm == "l2_per_layer":
        return float(np.sqrt(per_layer).sum())
    half = len(per_layer) // 2
    return float(np.sqrt(per_layer[:half].sum()) + np.sqrt(per_layer[half:].sum()))


def estimate_chance_discrepancy(source: SourceStatistics, count: int) -> float:
    """Return the squared discrepancy that `count` other images of the source have, on the average.

    The variance of a mean is σ² / n, that of a standard deviation about σ² / 2(n − 1) for normal features and
    many images; both the batch's and the source's count. A single image has no standard deviation.
    """
    variance = float(np.square(source.std.astype(np.float64)).sum())
    means = 1 / count + 1 / source.images
    stds = 1 / (count - 1) + 1 / (source.images - 1) if count > 1 else 0.0
    return variance * (means + stds / 2)


def compute_alignment_loss(distance: float, entropies: FloatArray, weight: float, scale: LossScale) -> float:
    """Return `weight · distance · N/64 + Σ entropies`, the loss of FOA and FOZO.

    Args:
        distance: to the source statistics.
        entropies: of the N predictions, `[N]`.
        weight: λ.
        scale: `sum` as it is (official code), or `per_image`: brought to what a batch of 64 would have, so
            that a smaller batch neither looks cheaper nor takes a smaller step.

    >>> entropies = np.full(32, 0.5)
    >>> compute_alignment_loss(10.0, entropies, 0.4, "sum")
    18.0
    >>> compute_alignment_loss(10.0, entropies, 0.4, "per_image")
    36.0
    """
    share = len(entropies) / REFERENCE_BATCH
    loss = weight * distance * share + float(entropies.sum())
    return loss / share if scale == "per_image" else loss


def compute_outputs_loss(
    outputs: Outputs, source: SourceStatistics, widths: Sequence[int], weight: float, scale: LossScale
) -> float:
    """Return the loss of FOA for the outputs of one forward: of a batch alone, with unshifted logits.

    Args:
        outputs: features `[N, L, F]` and logits `[N, K]`.
        source: statistics of clean images, `[L, F]`.
        widths: as for `compute_discrepancy`.
        weight, scale: as for `compute_alignment_loss`.
    """
    distance = compute_discrepancy(Moments.of(outputs.features), source, widths=widths)
    return compute_alignment_loss(distance, entropy(outputs.logits), weight, scale)


def compute_discrepancy_slopes(
    features: FloatArray, plus: FloatArray, minus: FloatArray, moments: Moments, source: SourceStatistics
) -> FloatArray:
    """Return the slopes of n/64 times the squared discrepancy along the features of single images.

    `⟨∂S/∂f_i, f_i⁺ − f_i⁻⟩ · n / 64` with `∂S/∂f_i = 2 (μ − μ_S) / n + 2 (σ − σ_S) (f_i − μ) / ((n − 1) σ)`,
    coordinate by coordinate: exact in the first order, and independent of how many images there are.

    Args:
        features: of the batch, where the derivative is taken, `[N, L, F]`.
        plus, minus: two points that each image's features go between, of the same shape.
        moments: of the n images whose statistics are aligned, those of the batch among them.
        source: statistics of clean images, `[L, F]`.

    Returns:
        float64 `[N]`.
    """
    step = (plus - minus).astype(np.float64)
    total = np.einsum("nlf,lf->n", step, 2 * (moments.mean - source.mean))
    scale = scale_deviations(moments, source)
    if scale is not None:
        total += np.einsum("nlf,nlf,lf->n", step, features - moments.mean, scale)
    return cast(FloatArray, total / REFERENCE_BATCH)


def scale_deviations(moments: Moments, source: SourceStatistics) -> FloatArray | None:
    """Return the factor of a feature's distance to the mean in `n ∂S/∂f`: `2 (σ − σ_S) n / ((n − 1) σ)`.

    Float64 `[L, F]`, 0 where nothing varies; None for a single image, which has no standard deviation.
    """
    std = moments.std
    if std is None:
        return None
    scale = np.divide(2 * (std - source.std), std, out=np.zeros_like(std), where=std > 0)
    return cast(FloatArray, scale * (moments.count / (moments.count - 1)))


def compute_diversity_slopes(plus: FloatArray, minus: FloatArray) -> FloatArray:
    """Return the slopes of N times the mean prediction's entropy along single predictions, float64 `[N]`.

    Args:
        plus, minus: two logits of each image that its prediction goes between, `[N, K]`.
    """
    probabilities_plus, probabilities_minus = softmax(plus), softmax(minus)
    mean = (probabilities_plus.mean(axis=0) + probabilities_minus.mean(axis=0)) / 2
    log_mean = np.log(np.maximum(mean, np.finfo(np.float64).tiny))
    return cast(FloatArray, -(probabilities_plus - probabilities_minus) @ log_mean)
