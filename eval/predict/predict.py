"""Unlabelled images in, predictions out, adapting on the way: batches, and what is said of each image."""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from ...data.images import preprocess, read_image
from ...engine.bundle.bundle import Manifest
from ...engine.errors import InputError
from ...engine.registry import Prediction
from ...engine.streams.adapter import Adapter

READERS = 2  # threads that read images ahead

Pixels = NDArray[np.uint8]
Paths = Iterable[str | os.PathLike[str] | None]


@dataclass(frozen=True)
class Guess:
    """A class that an image may show.

    Attributes:
        class_id: the bundle's identifier of the class, or else its index in digits.
        class_name: the bundle's name of the class, or else `class_id`.
        class_index: among all classes of the bundle, whichever of them are predicted.
        confidence: softmax of the adapted logits, in 0..1.
    """

    class_id: str
    class_name: str
    class_index: int
    confidence: float


@dataclass(frozen=True)
class Row:
    """What is said of one image.

    Attributes:
        path: as it was given.
        top: the likeliest classes, best first; empty for an image that cannot be read.
        batch: which batch it was in, counted from 1 since the adapter's state began; None if it was in none.
        error: why the image cannot be read, or None.
    """

    path: str
    top: tuple[Guess, ...]
    batch: int | None
    error: str | None = None


def predict(
    adapter: Adapter,
    paths: Paths,
    manifest: Manifest,
    *,
    classes: Sequence[int] | None = None,
    batch_size: int = 64,
    top: int = 1,
    skip_unreadable: bool = False,
    max_images: int | None = None,
    max_wait: float = 0,
    retry: Callable[[str], bool] = lambda path: False,
    on_batch: Callable[[int], None] = lambda images: None,
) -> Generator[Row, None, None]:
    """Predicts images in the order of their arrival, one row each, and adapts to every batch.

    Images are read ahead, at most a batch beside the one that is computed, and no prediction is kept. The
    last batch may be smaller. An unreadable image takes no place in a batch: the others get what they would
    get without it. Close the generator (`contextlib.closing`) where the loop may end early.

    Args:
        adapter: the stream that predicts; its state goes on.
        paths: image files. None says that nothing arrives at the moment (`eval/predict/watch.py`).
        manifest: of the bundle: how images are prepared, and what its classes are called.
        classes: the classes that the adapter's network is restricted to (`Network.select`); None is all.
        batch_size: images per batch, at least 1.
        top: guesses per row.
        skip_unreadable: give a row with `error` to an image that cannot be read, instead of raising; where
            that is raised, earlier images of the same batch are neither predicted nor learnt from.
        max_images: ends after so many rows, at least 1; None is all.
        max_wait: seconds after which, if nothing arrives, an image no longer waits for its batch to fill up.
        retry: asked about each image that cannot be read: true if it will arrive again and gets no row yet.
        on_batch: called with the number of rows when all rows of a batch have been used, before the next
            batch is computed: here, what the adapter has learnt and what it has said agree.

    Raises:
        InputError: a number is out of range (at once), or an image cannot be read (while iterating).
    """
    known = _classes(manifest, classes)
    if batch_size < 1 or not 1 <= top <= len(known) or (max_images is not None and max_images < 1):
        raise InputError(
            f"expected batches and images of at least 1, and 1 to {len(known)} guesses (as many as there are "
            f"classes), found {batch_size}, {max_images} and {top}; choose other numbers"
        )

    def load(path: str) -> Pixels:
        return preprocess(read_image(path), manifest.preprocessing)

    limit = math.inf if max_images is None else max_images
    images = _read(paths, load, batch_size, limit, retry)
    batches = _batches(images, batch_size, max_wait, skip_unreadable)
    return _predicted(adapter, batches, known, top, on_batch)


def _classes(manifest: Manifest, chosen: Sequence[int] | None) -> list[Guess]:
    """The classes that are predicted, in the order of the logits."""
    ids = manifest.class_ids or [str(index) for index in range(manifest.classes)]
    names = manifest.class_names or ids
    return [Guess(ids[i], names[i], i, 0.0) for i in (range(manifest.classes) if chosen is None else chosen)]


# Paths in order, each with the reason why it cannot be read; and the pixels of those that can, if any.
_Batch = tuple[list[tuple[str, str | None]], Pixels | None]


def _predicted(
    adapter: Adapter,
    batches: Generator[_Batch, None, None],
    known: Sequence[Guess],
    top: int,
    on_batch: Callable[[int], None],
) -> Generator[Row, None, None]:
    with closing(batches):
        for images, pixels in batches:
            tops: Iterator[tuple[Guess, ...]] = iter(())
            if pixels is not None:
                tops = _tops(adapter.step(pixels), known, top)
            del pixels  # before the next batch is put together
            for path, error in images:
                if error is None:
                    yield Row(path, next(tops), adapter.state.step)
                else:
                    yield Row(path, (), None, error)
            on_batch(len(images))


def _tops(prediction: Prediction, known: Sequence[Guess], top: int) -> Iterator[tuple[Guess, ...]]:
    for logits, probabilities in zip(prediction.logits, prediction.probabilities, strict=True):
        best = np.argsort(-logits, kind="stable")[:top]  # the first of equals, as argmax has it
        yield tuple(replace(known[column], confidence=float(probabilities[column])) for column in best)


@dataclass(frozen=True)
class _Image:
    """An image that arrived, at a time of `time.monotonic`: its pixels, or the reason why it has none."""

    path: str
    arrived: float
    pixels: Pixels | None
    error: str | None


def _read(
    paths: Paths,
    load: Callable[[str], Pixels],
    ahead: int,
    limit: float,
    retry: Callable[[str], bool],
) -> Generator[_Image | None, None, None]:
    """The first `limit` images in order, read ahead by threads; None where nothing arrives at the moment.

    At such a moment all that has arrived is read and given, so `paths` knows of all failures when it goes on.
    """
    waiting: deque[tuple[str, float, Future[Pixels]]] = deque()
    given = 0
    pool = ThreadPoolExecutor(READERS, thread_name_prefix="fozo-read")
    try:
        for path in chain(paths, [None]):
            if path is not None:
                name = os.fspath(path)
                waiting.append((name, time.monotonic(), pool.submit(load, name)))
            room = 0 if path is None or given + len(waiting) >= limit else ahead
            while len(waiting) > room:
                image = _finished(*waiting.popleft())
                if image.pixels is not None or not retry(image.path):
                    given += 1
                    yield image
            if given >= limit:
                return
            if path is None:
                yield None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _finished(path: str, arrived: float, future: Future[Pixels]) -> _Image:
    try:
        return _Image(path, arrived, future.result(), None)
    except InputError as error:
        return _Image(path, arrived, None, str(error))


def _batches(
    images: Generator[_Image | None, None, None], size: int, max_wait: float, skip: bool
) -> Generator[_Batch, None, None]:
    """Batches of `size` readable images, with the unreadable ones that came among them.

    A batch is smaller where the images end, or where its first one has waited for so long. Unreadable images
    that no readable one waits with are batches of their own, without pixels.
    """
    names: list[tuple[str, str | None]] = []
    pixels: list[Pixels] = []
    first = 0.0
    with closing(images):
        for image in images:
            if image is not None:
                if image.error is not None and not skip:
                    raise InputError(f"{image.error}; --on-error skip goes on without such images")
                first = first if names else image.arrived
                names.append((image.path, image.error))
                if image.pixels is not None:
                    pixels.append(image.pixels)
                due = len(pixels) in (0, size)
            else:
                due = bool(names) and time.monotonic() - first >= max_wait
            if due:
                yield names, _stacked(pixels)
                names = []
        if names:
            yield names, _stacked(pixels)


def _stacked(pixels: list[Pixels]) -> Pixels | None:
    """All in one array; the list is emptied, so that they are in memory only once."""
    stacked = np.stack(pixels) if pixels else None
    pixels.clear()
    return stacked
