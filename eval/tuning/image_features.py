"""Features of training images from the image graph that is deployed, computed once per crop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing

import numpy as np
from numpy.typing import NDArray

from ...engine.model import FloatArray, Forward
from .training_images import TrainingImages


class CropFeatures:
    """Features of N images, for each epoch those of one crop of each image.

    Crops that come again are encoded once, all images at the first use. Others are encoded batch by batch.

    Attributes:
        network: the image graph.
        images: the images and their crops.
        repeats: whether crops come again.
        on_images: is called with the number of images of every batch.
    """

    def __init__(
        self,
        network: Forward,
        images: TrainingImages,
        epochs: int,
        on_images: Callable[[int], None] = lambda count: None,
    ) -> None:
        """Prepare; nothing is computed before it is asked for."""
        self.network, self.images, self.on_images = network, images, on_images
        self.repeats = images.crops is not None and max(1, images.crops) < epochs
        self._features: dict[int, FloatArray] = {}
        self._latest: tuple[int, bytes, FloatArray] | None = None

    def get(self, epoch: int, rows: NDArray[np.int64]) -> FloatArray:
        """Return the features of some images in an epoch, counted from 0: unit embeddings, float32 `[n, F]`.

        Args:
            epoch: decides the crop.
            rows: numbers of the images, `[n]`.
        """
        number = self.images.choose_crop(epoch)
        if self.repeats:
            if number not in self._features:
                self._features[number] = self._compute(number, range(len(self.images.images)))
            return self._features[number][rows]
        if self._latest is None or self._latest[:2] != (number, rows.tobytes()):
            self._latest = number, rows.tobytes(), self._compute(number, rows.tolist())
        return self._latest[2]

    def _compute(self, number: int, rows: Sequence[int]) -> FloatArray:
        features = []
        with closing(self.images.read(number, rows)) as batches:
            for images in batches:
                features.append(self.network(images).features[:, -1])
                self.on_images(len(images))
        return np.concatenate(features)
