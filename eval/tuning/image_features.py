"""Features of training images from the image graph that is deployed, computed once per crop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing

import numpy as np
from numpy.typing import NDArray

from ...data.image_reader import ImageReader
from ...data.images import preprocess
from ...data.loader import load_batches
from ...data.training_crops import make_training_crop
from ...engine.bundle.preprocessing import Preprocessing
from ...engine.model import FloatArray, Forward
from ..datasets.split_data import LabelledImage, SplitData

BATCH = 32


class CropFeatures:
    """Features of N images, for each epoch those of one crop of each image.

    Crops that come again are encoded once, all images at the first use. Others are encoded batch by batch.

    Attributes:
        network: the image graph.
        crops: random crops of each image, used in turn; 0: the ordinary crop alone; None: fresh ones in every
            epoch.
        repeats: whether crops come again.
        on_images: is called with the number of images of every batch.
    """

    def __init__(
        self,
        network: Forward,
        data: SplitData,
        images: Sequence[LabelledImage],
        preprocessing: Preprocessing,
        reader: ImageReader,
        crops: int | None,
        epochs: int,
        seed: int,
        on_images: Callable[[int], None] = lambda count: None,
    ) -> None:
        """Prepare; nothing is computed before it is asked for."""
        self.network, self.crops, self.on_images = network, crops, on_images
        self._files = [(str(data.folder / image.path), image.path) for image in images]
        self._preprocessing, self._reader, self._seed = preprocessing, reader, seed
        self.repeats = crops is not None and max(1, crops) < epochs
        self._features: dict[int, FloatArray] = {}
        self._latest: tuple[int, bytes, FloatArray] | None = None

    def get(self, epoch: int, rows: NDArray[np.int64]) -> FloatArray:
        """Return the features of some images in an epoch, counted from 0: unit embeddings, float32 `[n, F]`.

        Args:
            epoch: decides the crop.
            rows: numbers of the images, `[n]`.
        """
        number = epoch if self.crops is None else epoch % max(1, self.crops)
        if self.repeats:
            if number not in self._features:
                self._features[number] = self._compute(number, range(len(self._files)))
            return self._features[number][rows]
        if self._latest is None or self._latest[:2] != (number, rows.tobytes()):
            self._latest = number, rows.tobytes(), self._compute(number, rows.tolist())
        return self._latest[2]

    def _compute(self, number: int, rows: Sequence[int]) -> FloatArray:
        features = []
        with closing(load_batches(lambda index: self._load(index, number), rows, BATCH)) as batches:
            for images in batches:
                features.append(self.network(images).features[:, -1])
                self.on_images(len(images))
        return np.concatenate(features)

    def _load(self, index: int, number: int) -> NDArray[np.uint8]:
        path, name = self._files[index]
        image = self._reader.read(path)
        if self.crops == 0:
            return preprocess(image, self._preprocessing)
        return make_training_crop(image, self._preprocessing.size, self._seed, name, number)
