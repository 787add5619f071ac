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

    Attributes:
        network: the image graph.
        images: paths of the images, and their names.
        crops: random crops of each image, used in turn; 0: the ordinary crop alone.
        on_images: is called with the number of images of every batch.
    """

    def __init__(
        self,
        network: Forward,
        data: SplitData,
        images: Sequence[LabelledImage],
        preprocessing: Preprocessing,
        reader: ImageReader,
        crops: int,
        epochs: int,
        seed: int,
        on_images: Callable[[int], None] = lambda count: None,
    ) -> None:
        """Prepare; nothing is computed before it is asked for."""
        self.network, self.crops, self.on_images = network, crops, on_images
        self._files = [(str(data.folder / image.path), image.path) for image in images]
        self._preprocessing, self._reader, self._seed = preprocessing, reader, seed
        self._remembers = max(1, crops) < epochs  # otherwise no crop comes twice
        self._features: dict[int, FloatArray] = {}

    def get(self, epoch: int) -> FloatArray:
        """Return the features of an epoch, counted from 0: unit embeddings, float32 `[N, F]`."""
        number = epoch % max(1, self.crops)
        if number not in self._features:
            if not self._remembers:
                self._features.clear()
            self._features[number] = self._compute(number)
        return self._features[number]

    def _compute(self, number: int) -> FloatArray:
        rows = []
        loading = load_batches(lambda index: self._load(index, number), range(len(self._files)), BATCH)
        with closing(loading) as batches:
            for images in batches:
                rows.append(self.network(images).features[:, -1])
                self.on_images(len(images))
        return np.concatenate(rows)

    def _load(self, index: int, number: int) -> NDArray[np.uint8]:
        path, name = self._files[index]
        image = self._reader.read(path)
        if not self.crops:
            return preprocess(image, self._preprocessing)
        return make_training_crop(image, self._preprocessing.size, self._seed, name, number)
