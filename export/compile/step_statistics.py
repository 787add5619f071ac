"""Statistics, losses and shifts as expressions, the counterparts of `engine/statistics` (float64)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...engine.model import FloatArray, SourceStatistics
from ...engine.statistics.objective import REFERENCE_BATCH, DiscrepancyNorm
from ...engine.statistics.source_alignment import SMALLEST_CHANCE, SourceAlignment
from .tensor import Tensor, concatenate, einsum, maximum, minimum, where


@dataclass(frozen=True)
class GraphMoments:
    """Moments over images, float64.

    Attributes:
        count: number of images, a scalar.
        mean: `[L, F]`.
        std: unbiased standard deviation `[L, F]`; 0 where there is a single image.
    """

    count: Tensor
    mean: Tensor
    std: Tensor

    @property
    def is_single(self) -> Tensor:
        """True for a single image, which has no standard deviation."""
        return self.count < 2.0


def compute_moments(features: Tensor, weights: Tensor | None = None) -> GraphMoments:
    """Return the moments of features, float64 `[N, L, F]`; with weights 0 or 1 `[N]`, of a part of them."""
    if weights is None:
        count = features.shape(0, 1).reshape().cast(np.float64)
        mean = features.mean(0)
        deviations = (features - mean) * (features - mean)
        total = deviations.sum(0)
    else:
        count = weights.sum()
        mean = einsum("n,nlf->lf", weights, features) / count
        centred = features - mean
        total = einsum("n,nlf->lf", weights, centred * centred)
    return GraphMoments(count, mean, (total / maximum(count - 1.0, 1.0)).sqrt())


def compute_batch_moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and biased variance of features `[N, F]` over images, float64 `[F]` each."""
    exact = features.cast(np.float64)
    mean = exact.mean(0)
    centred = exact - mean
    return mean, (centred * centred).mean(0)


def entropy(logits: Tensor) -> Tensor:
    """Return the entropy of each prediction in nats, float64 `[N]`, of float32 `[N, K]`."""
    exact = logits.cast(np.float64)
    shifted = exact - exact.max(1, keep=True)
    weights = shifted.exp()
    total = weights.sum(1)
    return total.log() - (weights * shifted).sum(1) / total


def softmax(logits: Tensor) -> Tensor:
    """Return probabilities, float64 `[N, K]`, of float32 `[N, K]`."""
    exact = logits.cast(np.float64)
    weights = (exact - exact.max(1, keep=True)).exp()
    return weights / weights.sum(1, keep=True)


def compute_discrepancy(
    moments: GraphMoments, source: SourceStatistics, norm: DiscrepancyNorm = "squared"
) -> Tensor:
    """Return the distance of moments to the source's, a scalar; for a single image that of its mean."""
    mean, std = (_to_constant(moments.mean, values) for values in (source.mean, source.std))
    means = _measure(moments.mean - mean, norm, len(source.mean))
    stds = _measure(moments.std - std, norm, len(source.mean))
    return means + where(moments.is_single, stds * 0.0, stds)


def _measure(difference: Tensor, norm: DiscrepancyNorm, layers: int) -> Tensor:
    squares = difference * difference
    if norm == "squared":
        return squares.sum()
    per_layer = squares.sum(1)
    if norm == "mean_squared":
        return squares.mean()
    if norm == "l2_per_layer":
        return per_layer.sqrt().sum()
    half = layers // 2
    return per_layer.slice(0, half).sum().sqrt() + per_layer.slice(half, layers).sum().sqrt()


def compute_discrepancy_slopes(
    features: Tensor, step: Tensor, moments: GraphMoments, source: SourceStatistics
) -> Tensor:
    """Return n/64 times the slopes of the squared discrepancy along single images' features, float64 `[N]`.

    Args:
        features: where the derivative is taken, float64 `[N, L, F]`.
        step: from one point to the other, float64 of that shape.
        moments: of the n images whose statistics are aligned.
        source: statistics of clean images.
    """
    mean, std = (_to_constant(moments.mean, values) for values in (source.mean, source.std))
    total = (step * ((moments.mean - mean) * 2.0)).sum(1, 2)
    varies = moments.std > 0.0
    divisor = where(varies, moments.std, 1.0)
    scale = where(varies, (moments.std - std) * 2.0 / divisor, 0.0)
    scale = scale * (moments.count / maximum(moments.count - 1.0, 1.0))
    spread = (step * (features - moments.mean) * scale).sum(1, 2)
    return (total + where(moments.is_single, spread * 0.0, spread)) / float(REFERENCE_BATCH)


def measure_alignment(moments: GraphMoments, alignment: SourceAlignment) -> tuple[Tensor, Tensor]:
    """Return the distance to the source, and the strength of adaptation from 0 to 1."""
    distance = compute_discrepancy(moments, alignment.source)
    if not alignment.tolerance:
        return distance, distance * 0.0 + 1.0
    source = alignment.source
    variance = float(np.square(source.std.astype(np.float64)).sum())
    count = minimum(moments.count, float(REFERENCE_BATCH))
    stds = 1.0 / maximum(count - 1.0, 1.0) + 1 / (source.images - 1)
    chance = (1.0 / count + 1 / source.images + where(count > 1.0, stds / 2.0, 0.0)) * variance
    strength = distance / maximum(chance, SMALLEST_CHANCE) / alignment.tolerance - 1.0
    return distance, minimum(maximum(strength, 0.0), 1.0)


def compute_alignment_offset(
    moments: GraphMoments, strength: Tensor, alignment: SourceAlignment, head: FloatArray
) -> Tensor:
    """Return the logit offset of the shift, float32 `[K]`."""
    if alignment.target == "none":
        return moments.mean.graph.constant(np.zeros(len(head)), np.float32)
    gain = minimum(moments.count / float(REFERENCE_BATCH), 1.0) * strength
    target = None if alignment.target == "origin" else alignment.source.mean[-1]
    return compute_logit_offset(compute_shift(target, moments.mean.take(-1)) * gain, head)


def compute_shift(target: FloatArray | None, center: Tensor) -> Tensor:
    """Return from where features are centred to where they should be, float64 `[F]`."""
    return -center if target is None else _to_constant(center, target) - center


def compute_logit_offset(shift: Tensor, head: FloatArray) -> Tensor:
    """Return what moving the features by `shift` `[F]` adds to the logits, float32 `[K]`."""
    weight = shift.graph.constant(head, np.float32)
    return weight.matmul(shift.cast(np.float32))


def join_window(features: Tensor, window: Tensor, filled: Tensor) -> tuple[Tensor, Tensor]:
    """Return features with those of a window behind them, float64 `[N + W, L, F]`, and which of them count.

    As many of the window's latest count as the batch leaves room for. The weights are 0 or 1, `[N + W]`.

    Args:
        features: float64 `[N, L, F]`.
        window: of the last images, the latest last, float32 `[W, L, F]`.
        filled: images in the window, an int64 scalar.
    """
    graph, size = features.graph, window.shape(0, 1).reshape()
    count = features.shape(0, 1)
    position = graph.apply("Range", [graph.constant(0, np.int64), size, graph.constant(1, np.int64)])
    recent = (position >= count.reshape()) & (position >= size - filled)
    ones = graph.constant([1.0], np.float64).expand(count)
    weights = concatenate([ones, recent.cast(np.float64)])
    return concatenate([features, window.cast(np.float64)]), weights


def slide_window(window: Tensor, filled: Tensor, features: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return the window after a batch, float32 `[W, L, F]`, and how many images it has then."""
    joined = concatenate([window, features.cast(np.float32)])
    count = features.shape(0, 1).reshape()
    return joined.slice(-size, np.iinfo(np.int64).max), minimum(filled + count, size)


def _to_constant(like: Tensor, values: FloatArray) -> Tensor:
    return like.graph.constant(values, np.float64)
