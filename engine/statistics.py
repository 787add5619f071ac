"""Source statistics: mean and unbiased std of the features over clean images, in constant memory."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from .errors import InputError
from .model import FloatArray, Forward, ImageArray, SourceStatistics

MIN_IMAGES = 32


class Moments:
    """Running mean and sum of squared deviations over the first axis, float64.

    Batches are merged as in Chan, Golub and LeVeque (1983).
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean: FloatArray = np.zeros(())
        self.deviations: FloatArray = np.zeros(())

    def add(self, batch: FloatArray) -> None:
        """Takes in a batch `[N, …]`."""
        batch = batch.astype(np.float64)
        count, mean = len(batch), batch.mean(axis=0)
        total = self.count + count
        delta = mean - self.mean
        self.deviations = (
            self.deviations
            + np.square(batch - mean).sum(axis=0)
            + np.square(delta) * (self.count * count / total)
        )
        self.mean = self.mean + delta * (count / total)
        self.count = total

    def std(self) -> FloatArray:
        """Unbiased standard deviation of what was taken in; needs at least two entries."""
        return np.sqrt(self.deviations / (self.count - 1))


def source_statistics(network: Forward, batches: Iterable[ImageArray]) -> SourceStatistics:
    """Statistics of the features of clean images, without prompts.

    Args:
        network: the very graph that will be adapted.
        batches: clean images, each uint8 `[N, H, W, 3]`.

    Raises:
        InputError: there are fewer than 32 images, or the network answers with non-finite features.
    """
    moments = Moments()
    for images in batches:
        moments.add(network(images).features)
    if moments.count < MIN_IMAGES:
        raise InputError(
            f"source statistics need at least {MIN_IMAGES} images, found {moments.count}: with fewer, "
            "the standard deviations are too uncertain to align anything with; add clean images"
        )
    mean, std = moments.mean.astype(np.float32), moments.std().astype(np.float32)
    if not (np.isfinite(mean).all() and np.isfinite(std).all()):
        raise InputError(
            f"{network.info.name} answers clean images with non-finite features; check its weights"
        )
    return SourceStatistics(mean, std, moments.count)
