"""Clean images for source statistics: a seeded choice from a folder, or the demonstration's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..engine.bundle.bundle import Bundle
from ..engine.bundle.preprocessing import Preprocessing
from ..engine.errors import InputError
from ..engine.runtime.network import Network
from ..engine.statistics.moments import MIN_IMAGES, source_statistics
from .demo import demo_images
from .images import list_images, preprocess, read_image
from .loader import counted, load_batches

SOURCE_BATCH = 32
DEMO_MODEL = "fozo_demo_vit"
# ZOA's, for networks whose batch norms see the batch; and the seed by which its images are mixed.
NORMALISED_BATCH, NORMALISED_SEED = 64, 0


@dataclass(frozen=True)
class SourceImages:
    """Clean images, not yet loaded.

    Attributes:
        count: how many.
        load: gives image i, uint8 `[H, W, 3]`; safe to call from several threads.
        origin: where they come from and how they were chosen, for the record.
        labels: their classes, int64 `[count]`, or None where they are not known.
    """

    count: int
    load: Callable[[int], NDArray[np.uint8]]
    origin: str
    labels: NDArray[np.int64] | None = None

    def part(self, indices: Sequence[int] | NDArray[np.int64]) -> SourceImages:
        """Some of them, in the given order."""
        chosen = [int(index) for index in indices]
        labels = None if self.labels is None else self.labels[chosen]
        return replace(self, count=len(chosen), load=lambda i: self.load(chosen[i]), labels=labels)


def choose_images(folder: Path, count: int, seed: int) -> tuple[list[Path], str]:
    """`count` images of a folder (or all, if it has fewer), chosen at random with a seed; and how, in words.

    Raises:
        InputError: the folder is missing, or too few images are in it or asked for.
    """
    paths = list_images(folder)
    if min(len(paths), count) < MIN_IMAGES:
        raise InputError(
            f"expected at least {MIN_IMAGES} images, found {len(paths)} in {folder} and {count} asked for: "
            "statistics of fewer are too uncertain; add clean images from the model's training domain"
        )
    chosen = paths
    if count < len(paths):
        picks = np.random.default_rng(seed).choice(len(paths), count, replace=False)
        chosen = [paths[index] for index in sorted(picks)]
    return chosen, f"{len(chosen)} of the {len(paths)} images in {folder.resolve().name}, seed {seed}"


def folder_source(
    folder: Path, how: Preprocessing, count: int, seed: int, class_ids: Sequence[str] | None = None
) -> SourceImages:
    """The images of `choose_images`, prepared for a model.

    Labels are known if all the images lie in folders that are named after classes.

    Raises:
        InputError: the folder is missing, or too few images are in it or asked for.
    """
    paths, origin = choose_images(folder, count, seed)
    return SourceImages(
        len(paths), lambda index: preprocess(read_image(paths[index]), how), origin, _labels(paths, class_ids)
    )


def _labels(paths: list[Path], class_ids: Sequence[str] | None) -> NDArray[np.int64] | None:
    known = {name: index for index, name in enumerate(class_ids or ())}
    labels = [known.get(path.parent.name) for path in paths]
    return None if None in labels else np.asarray(labels, np.int64)


def clean_images(bundle: Bundle, folder: Path | None, count: int, seed: int) -> SourceImages:
    """Return clean images from a folder, or the demonstration's own for its model.

    Raises:
        InputError: there is no folder, or too few images are in it or asked for.
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


def store_source(
    bundle: Bundle,
    precision: str,
    images: SourceImages,
    on_batch: Callable[[int], None] = lambda images: None,
) -> Bundle:
    """Computes the source statistics of a graph with that graph, and stores them in its bundle.

    A network with batch norms is used as ZOA uses it (methods.md): every norm with the statistics of the
    batch. So the images are mixed first, and full batches of 64 are taken; what is left over is not used.

    Args:
        bundle: where the graph is; the changed bundle is returned.
        precision: which graph.
        images: clean images.
        on_batch: called after each batch with its number of images.

    Raises:
        BundleError: the bundle cannot be used.
        InputError: an image cannot be read, or features are not finite.
        OutputError: the bundle's folder cannot be written.
    """
    size = SOURCE_BATCH
    tunables: dict[str, NDArray[np.float32]] = {}
    if "batch_statistics" in bundle.manifest.tunables:
        size, tunables = NORMALISED_BATCH, {"batch_statistics": np.ones(1, np.float32)}
        images = _normalised_together(images)
    loading = closing(load_batches(images.load, range(images.count), size))
    with Network.open(bundle, precision) as network, loading as batches:
        statistics = source_statistics(network, counted(batches, on_batch), **tunables)
    return bundle.with_source(precision, statistics, images.origin)


def _normalised_together(images: SourceImages) -> SourceImages:
    """The images in random order, without those that fill no batch; fewer than a batch are one batch."""
    order = np.random.default_rng(NORMALISED_SEED).permutation(images.count)
    full = images.count - images.count % NORMALISED_BATCH or images.count
    batch = min(full, NORMALISED_BATCH)
    how = f"{full} of them in batches of {batch}, normalised with the statistics of their batch"
    return replace(images.part(order[:full]), origin=f"{images.origin}; {how}")
