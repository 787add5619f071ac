"""Source statistics: mean and unbiased std of the features over clean images, in constant memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from ..errors import InputError
from ..model import FloatArray, Forward, ImageArray, SourceStatistics

MIN_IMAGES = 32
_EQUAL = 1e-5  # relative deviation of features below which they differ by rounding alone


@dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared deviations over the first axis of some values, float64.

    >>> moments = Moments.of(np.array([[1.0], [2.0]])).merge(Moments.of(np.array([[6.0]])))
    >>> moments.count, moments.mean.tolist(), moments.deviations.tolist()
    (3, [3.0], [14.0])
    """

    count: int
    mean: FloatArray
    deviations: FloatArray

    @staticmethod
    def of(values: FloatArray) -> Moments:
        """Return the moments of `values` `[N, …]`, N ≥ 1."""
        values = values.astype(np.float64)
        mean = values.mean(axis=0)
        centred = values - mean
        return Moments(len(values), mean, np.einsum("n...,n...->...", centred, centred))

    def merge(self, other: Moments | None) -> Moments:
        """Return the moments of both together, as in Chan, Golub and LeVeque (1983)."""
        if other is None:
            return self
        total = self.count + other.count
        delta = other.mean - self.mean
        deviations = self.deviations + other.deviations
        deviations += np.square(delta) * (self.count * other.count / total)
        return Moments(total, self.mean + delta * (other.count / total), deviations)

    @property
    def std(self) -> FloatArray | None:
        """Unbiased standard deviation, or None for a single entry, where it is undefined."""
        return None if self.count < 2 else cast(FloatArray, np.sqrt(self.deviations / (self.count - 1)))


@dataclass(frozen=True)
class ChannelMoments:
    """Mean and biased variance of the channels of some activations.

    Attributes:
        mean: float64 `[C]`.
        variance: float64 `[C]`.
    """

    mean: FloatArray
    variance: FloatArray

    @staticmethod
    def of(values: FloatArray) -> ChannelMoments:
        """Return the moments of `values` `[N, C]` over N."""
        values = values.astype(np.float64)
        return ChannelMoments(values.mean(axis=0), values.var(axis=0))

    @staticmethod
    def of_images(moments: FloatArray) -> ChannelMoments:
        """Return the moments over all tokens of some images from those of each image, `[N, 2, C]`."""
        means = ChannelMoments.of(moments[:, 0])
        return ChannelMoments(means.mean, means.variance + moments[:, 1].mean(axis=0, dtype=np.float64))

    def blend(self, other: ChannelMoments, weight: float) -> ChannelMoments:
        """Return the moments of a mixture, of which a share of `weight` is `other`.

        >>> old, new = ChannelMoments.of(np.array([[0.0], [2.0]])), ChannelMoments.of(np.array([[4.0]]))
        >>> blend = old.blend(new, 1 / 3)
        >>> float(blend.mean[0]), round(float(blend.variance[0]), 12)  # of 0, 2 and 4
        (2.0, 2.666666666667)
        """
        delta = other.mean - self.mean
        variance = (1 - weight) * self.variance + weight * other.variance
        variance += weight * (1 - weight) * np.square(delta)
        return ChannelMoments(self.mean + weight * delta, variance)


def compute_source_statistics(
    network: Forward, batches: Iterable[ImageArray], **tunables: FloatArray
) -> SourceStatistics:
    """Compute the statistics of the features of clean images, without prompts.

    Those of activations come with them if the network was opened with activations.

    Args:
        network: the very graph that will be adapted.
        batches: clean images, each uint8 `[N, H, W, 3]`.
        tunables: how the network is used later, where it is not used plainly: `batch_statistics`.

    Raises:
        InputError: there are fewer than 32 images, the network answers with non-finite features, or with the
            same for all images.
    """
    moments: Moments | None = None
    activations: ChannelMoments | None = None
    for images in batches:
        outputs = network(images, **tunables)
        moments = Moments.of(outputs.features).merge(moments)
        if outputs.activation_moments is not None:
            new = ChannelMoments.of_images(outputs.activation_moments)
            activations = new if activations is None else activations.blend(new, len(images) / moments.count)
    if moments is None or moments.std is None or moments.count < MIN_IMAGES:
        raise InputError(
            f"source statistics need at least {MIN_IMAGES} images, found {moments.count if moments else 0}: "
            "with fewer, the standard deviations are too uncertain to align anything with; add clean images"
        )
    mean, std = moments.mean.astype(np.float32), moments.std.astype(np.float32)
    if not (np.isfinite(mean).all() and np.isfinite(std).all()):
        raise InputError(
            f"{network.info.name} answers clean images with non-finite features; check its weights"
        )
    if std.max() <= _EQUAL * np.abs(mean).max():
        raise InputError(
            f"{network.info.name} answers all {moments.count} clean images with the same features: they are "
            "equal, perhaps of one colour; give different images of what the model was trained on"
        )
    statistics = SourceStatistics(mean, std, moments.count)
    return statistics if activations is None else _add_activations(statistics, activations)


def _add_activations(statistics: SourceStatistics, activations: ChannelMoments) -> SourceStatistics:
    return replace(
        statistics,
        activation_mean=activations.mean.astype(np.float32),
        activation_std=np.sqrt(activations.variance).astype(np.float32),
    )
