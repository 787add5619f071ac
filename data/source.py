"""Clean images for source statistics: a seeded choice from a folder, or the demonstration's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..engine.bundle.bundle import Bundle
from ..engine.bundle.preprocessing import Preprocessing
from ..engine.errors import InputError
from ..engine.statistics.feature_statistics import MIN_IMAGES
from .demo import demo_images
from .images import list_images, preprocess, read_image

DEMO_MODEL = "fozo_demo_vit"


@dataclass(frozen=True)
class SourceImages:
    """Clean images, not yet loaded.

    Attributes:
        count: number of images.
        load: returns image i, uint8 `[H, W, 3]`; safe to call from several threads.
        origin: source of the images and method of their choice, for the record.
        labels: classes, int64 `[count]`, or None if they are unknown.
    """

    count: int
    load: Callable[[int], NDArray[np.uint8]]
    origin: str
    labels: NDArray[np.int64] | None = None

    def select(self, indices: Sequence[int] | NDArray[np.int64]) -> SourceImages:
        """Return the images at `indices`, in that order."""
        selected = [int(index) for index in indices]
        labels = None if self.labels is None else self.labels[selected]
        return replace(self, count=len(selected), load=lambda i: self.load(selected[i]), labels=labels)


def choose_images(folder: Path, count: int, seed: int) -> tuple[list[Path], str]:
    """Choose `count` images of a folder (or all, if it has fewer) at random, and describe the choice.

    Raises:
        InputError: the folder is missing, or it or `count` has too few images.
    """
    paths = list_images(folder)
    if min(len(paths), count) < MIN_IMAGES:
        raise InputError(
            f"expected at least {MIN_IMAGES} images, found {len(paths)} in {folder} and {count} requested: "
            "statistics of fewer are too uncertain; add clean images from the model's training domain"
        )
    selected = paths
    if count < len(paths):
        picks = np.random.default_rng(seed).choice(len(paths), count, replace=False)
        selected = [paths[index] for index in sorted(picks)]
    return selected, f"{len(selected)} of the {len(paths)} images in {folder.resolve().name}, seed {seed}"


def folder_source(
    folder: Path, preprocessing: Preprocessing, count: int, seed: int, class_ids: Sequence[str] | None = None
) -> SourceImages:
    """Return the images of `choose_images`, prepared for a model.

    They have labels if all of them lie in folders that are named after classes.

    Raises:
        InputError: the folder is missing, or it or `count` has too few images.
    """
    paths, origin = choose_images(folder, count, seed)
    return SourceImages(
        len(paths),
        lambda index: preprocess(read_image(paths[index]), preprocessing),
        origin,
        _read_labels(paths, class_ids),
    )


def _read_labels(paths: list[Path], class_ids: Sequence[str] | None) -> NDArray[np.int64] | None:
    numbers = {name: index for index, name in enumerate(class_ids or ())}
    labels = [numbers.get(path.parent.name) for path in paths]
    return None if None in labels else np.asarray(labels, np.int64)


def clean_images(bundle: Bundle, folder: Path | None, count: int, seed: int) -> SourceImages:
    """Return clean images from a folder, or the demonstration's own for its model.

    Raises:
        InputError: there is no folder, or it or `count` has too few images.
    """
    manifest = bundle.manifest
    if folder is not None:
        return folder_source(folder, manifest.preprocessing, count, seed, manifest.class_ids)
    if manifest.model == DEMO_MODEL:
        return demo_source()
    raise InputError("expected a folder of clean images, found none; name one after the bundle")


def demo_source() -> SourceImages:
    """Return the images that the demonstration's model was trained on."""
    images, labels = demo_images("train")
    origin = "the demonstration's training images"
    return SourceImages(len(images), lambda index: images[index], origin, labels)
