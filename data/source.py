"""Clean images for source statistics: a seeded choice from a folder, or the demonstration's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..engine.errors import InputError
from ..engine.preprocessing import Preprocessing
from ..engine.statistics import MIN_IMAGES
from .demo import demo_images
from .images import list_images, preprocess, read_image


@dataclass(frozen=True)
class SourceImages:
    """Clean images, not yet loaded.

    Attributes:
        count: how many.
        load: gives image i, uint8 `[H, W, 3]`; safe to call from several threads.
        origin: where they come from and how they were chosen, for the record.
    """

    count: int
    load: Callable[[int], NDArray[np.uint8]]
    origin: str


def folder_source(folder: Path, how: Preprocessing, count: int, seed: int) -> SourceImages:
    """`count` images of a folder (or all, if it has fewer), chosen at random with a seed.

    Raises:
        InputError: the folder is missing, or too few images are in it or asked for.
    """
    paths = list_images(folder)
    if min(len(paths), count) < MIN_IMAGES:
        raise InputError(
            f"source statistics need at least {MIN_IMAGES} images, found {len(paths)} in {folder} and "
            f"{count} asked for: with fewer, the standard deviations are too uncertain; add clean "
            "images from the model's training domain"
        )
    chosen = paths
    if count < len(paths):
        picks = np.random.default_rng(seed).choice(len(paths), count, replace=False)
        chosen = [paths[index] for index in sorted(picks)]
    origin = f"{len(chosen)} of the {len(paths)} images in {folder.name}, seed {seed}"
    return SourceImages(len(chosen), lambda index: preprocess(read_image(chosen[index]), how), origin)


def demo_source() -> SourceImages:
    """The images that the demonstration's model was trained on."""
    images, _ = demo_images("train")
    return SourceImages(len(images), lambda index: images[index], "the demonstration's training images")
