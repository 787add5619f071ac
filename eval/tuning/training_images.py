"""Training images from their files, for each epoch one crop of each."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...data.image_reader import ImageReader
from ...data.images import add_frame, preprocess
from ...data.loader import load_batches
from ...data.training_crops import make_training_crop
from ...engine.bundle.preprocessing import Preprocessing
from ...engine.model import ImageArray
from ..datasets.split_data import LabelledImage, SplitData

BATCH = 32  # images that are computed at a time


@dataclass(frozen=True)
class TrainingImages:
    """N images, prepared or cropped.

    Attributes:
        data: their data set.
        images: the images.
        preprocessing: of the model, perhaps with a frame.
        reader: reads the files.
        crops: random crops of each image, used in turn; 0: the ordinary crop alone; None: fresh ones in every
            epoch.
        seed: of the crops.
    """

    data: SplitData
    images: Sequence[LabelledImage]
    preprocessing: Preprocessing
    reader: ImageReader
    crops: int | None
    seed: int

    def choose_crop(self, epoch: int) -> int:
        """Return the number of the crops of an epoch, counted from 0."""
        return epoch if self.crops is None else epoch % max(1, self.crops)

    def read(self, crop: int, rows: Sequence[int]) -> Generator[ImageArray, None, None]:
        """Yield batches of some images, uint8 `[n, H, W, 3]`, n at most `BATCH`.

        Args:
            crop: number of the crops.
            rows: numbers of the images.

        Raises:
            InputError: an image cannot be read.
        """
        with closing(load_batches(lambda index: self._load(index, crop), rows, BATCH)) as batches:
            yield from batches

    def _load(self, index: int, crop: int) -> NDArray[np.uint8]:
        name = self.images[index].path
        image = self.reader.read(str(self.data.folder / name))
        if self.crops == 0:
            return preprocess(image, self.preprocessing)
        inside = make_training_crop(image, self.preprocessing.inside.size, self.seed, name, crop)
        return add_frame(inside, self.preprocessing.frame)


@dataclass(frozen=True)
class ImageBatches:
    """Images of a step, read anew whenever they are iterated over.

    Attributes:
        source: all training images.
        crop: number of the crops.
        rows: numbers of the images in the step.
    """

    source: TrainingImages
    crop: int
    rows: NDArray[np.int64]

    def __iter__(self) -> Generator[ImageArray, None, None]:
        return self.source.read(self.crop, self.rows.tolist())


def make_batch_reader(
    source: TrainingImages, on_images: Callable[[int], None]
) -> Callable[[int, NDArray[np.int64]], ImageBatches]:
    """Return what gives the images of a step by the number of the epoch and their rows.

    Args:
        source: all training images.
        on_images: is called with the number of images of every step.
    """

    def get(epoch: int, rows: NDArray[np.int64]) -> ImageBatches:
        on_images(len(rows))
        return ImageBatches(source, source.choose_crop(epoch), rows)

    return get
