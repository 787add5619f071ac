"""Clean images for source statistics: a seeded choice from a folder, or the demonstration's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..engine.bundle.bundle import Bundle
from ..engine.bundle.preprocessing import Preprocessing
from ..engine.errors import InputError, escape_controls
from ..engine.statistics.feature_statistics import MIN_IMAGES
from .demo import DEMO_CLIP, DEMO_MODEL, demo_images
from .image_listing import list_images
from .image_reader import ImageReader
from .reading import suggest_skipping

_READERS = 2  # threads that check images


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


def choose_images(
    folder: Path, count: int, seed: int, reader: ImageReader | None = None, *, skip: bool = False
) -> tuple[list[Path], str]:
    """Choose `count` images of a folder (or all, if it has fewer) at random, and describe the choice.

    Args:
        folder: the folder; images below it count too.
        count: number of images to choose.
        seed: seed of the choice.
        reader: reads the images, and counts what is remarkable; None is one with the defaults.
        skip: read every chosen image now, and leave out those that cannot be read.

    Raises:
        InputError: the folder is missing, or it or `count` has too few images.
    """
    listing, reader = list_images(folder), reader or ImageReader()
    reader.left_out[str(folder)] = listing.left_out
    paths = selected = listing.paths
    if count < len(paths):
        picks = np.random.default_rng(seed).choice(len(paths), count, replace=False)
        selected = [paths[index] for index in sorted(picks)]
    readable = _keep_readable(selected, reader) if skip else selected
    if min(len(readable), count) < MIN_IMAGES:
        raise InputError(
            f"expected at least {MIN_IMAGES} images, found {len(readable)} in {folder} and {count} "
            "requested: statistics of fewer are too uncertain; add clean images from the model's training "
            "domain"
        )
    name = escape_controls(folder.resolve().name)
    origin = f"{len(readable)} of the {len(paths)} images in {name}, seed {seed}"
    if len(readable) < len(selected):
        origin += f", without {len(selected) - len(readable)} unreadable"
    if reader.reading.exif_orientation == "apply":
        origin += ", turned by EXIF data"
    if (limit := reader.reading.reduced_above) is not None:
        origin += f", JPEG files above {limit:,} pixels reduced"
    return readable, origin


def _keep_readable(paths: list[Path], reader: ImageReader) -> list[Path]:
    with ThreadPoolExecutor(_READERS, thread_name_prefix="fozo-check") as pool:
        images = pool.map(lambda path: reader.read_or_skip(path) is not None, paths)
        return [path for path, readable in zip(paths, images, strict=True) if readable]


def folder_source(
    folder: Path,
    preprocessing: Preprocessing,
    count: int,
    seed: int,
    class_ids: Sequence[str] | None = None,
    reader: ImageReader | None = None,
    *,
    skip: bool = False,
) -> SourceImages:
    """Return the images of `choose_images`, prepared for a model.

    They have labels if all of them lie in folders that are named after classes.

    Raises:
        InputError: the folder is missing, or it or `count` has too few images.
    """
    reader = reader or ImageReader()
    paths, origin = choose_images(folder, count, seed, reader, skip=skip)
    prepare = reader.prepare(preprocessing)

    def load(index: int) -> NDArray[np.uint8]:
        try:
            return prepare(str(paths[index]))
        except InputError as error:
            raise suggest_skipping(error) from error

    return SourceImages(len(paths), load, origin, _read_labels(paths, class_ids))


def _read_labels(paths: list[Path], class_ids: Sequence[str] | None) -> NDArray[np.int64] | None:
    numbers = {name: index for index, name in enumerate(class_ids or ())}
    labels = [numbers.get(path.parent.name) for path in paths]
    return None if None in labels else np.asarray(labels, np.int64)


def clean_images(
    bundle: Bundle,
    folder: Path | None,
    count: int,
    seed: int,
    reader: ImageReader | None = None,
    *,
    skip: bool = False,
) -> SourceImages:
    """Return clean images from a folder, or the demonstration's own for its model.

    Args:
        bundle: the bundle whose model sees the images.
        folder: the folder; None for the demonstration's images.
        count, seed, reader, skip: as for `choose_images`.

    Raises:
        InputError: there is no folder, or it or `count` has too few images.
    """
    manifest = bundle.manifest
    if folder is not None:
        return folder_source(
            folder, manifest.preprocessing, count, seed, manifest.class_ids, reader, skip=skip
        )
    if manifest.model in (DEMO_MODEL, DEMO_CLIP):
        return demo_source()
    raise InputError("expected a folder of clean images, found none; name one after the bundle")


def demo_source() -> SourceImages:
    """Return the images that the demonstration's models were trained on."""
    images, labels = demo_images("train")
    origin = "the demonstration's training images"
    return SourceImages(len(images), lambda index: images[index], origin, labels)
