"""Images read ahead by threads and put together into batches."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from ...data.reading import suggest_skipping
from ...engine.errors import InputError

READERS = 2  # threads that read images ahead

Pixels = NDArray[np.uint8]
Paths = Iterable[str | os.PathLike[str] | None]


@dataclass(frozen=True)
class LoadedImage:
    """An image after reading.

    Attributes:
        path: path of the file.
        arrived: time of arrival, by `time.monotonic`.
        pixels: uint8 `[H, W, 3]`; None if the file is unreadable.
        error: why the file is unreadable, or None.
    """

    path: str
    arrived: float
    pixels: Pixels | None
    error: str | None


@dataclass(frozen=True)
class ImageBatch:
    """Images that are predicted together.

    Attributes:
        images: paths in order of arrival, each with the reason why it is unreadable, or None.
        pixels: uint8 `[N, H, W, 3]` of the readable ones; None if there are none.
    """

    images: list[tuple[str, str | None]]
    pixels: Pixels | None


def read_images(
    paths: Paths,
    load: Callable[[str], Pixels],
    read_ahead: int,
    limit: float,
    retry: Callable[[str], bool],
) -> Generator[LoadedImage | None, None, None]:
    """Yield images in order, read ahead by threads; None while no new path has arrived.

    Before a None, every image that has arrived is read and yielded, so `paths` has been told of all failures
    when it continues.

    Args:
        paths: image files; None while nothing arrives.
        load: reads a file.
        read_ahead: number of files to read ahead.
        limit: number of images after which to stop.
        retry: returns whether an unreadable file will arrive again.
    """
    pending: deque[tuple[str, float, Future[Pixels]]] = deque()
    yielded = 0
    pool = ThreadPoolExecutor(READERS, thread_name_prefix="fozo-read")
    try:
        for path in chain(paths, [None]):
            if path is not None:
                name = os.fspath(path)
                pending.append((name, time.monotonic(), pool.submit(load, name)))
            capacity = 0 if path is None or yielded + len(pending) >= limit else read_ahead
            while len(pending) > capacity:
                image = _await_image(*pending.popleft())
                if image.pixels is not None or not retry(image.path):
                    yielded += 1
                    yield image
            if yielded >= limit:
                return
            if path is None:
                yield None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _await_image(path: str, arrived: float, future: Future[Pixels]) -> LoadedImage:
    try:
        return LoadedImage(path, arrived, future.result(), None)
    except InputError as error:
        return LoadedImage(path, arrived, None, str(error))


def group_into_batches(
    images: Generator[LoadedImage | None, None, None], size: int, max_wait: float, skip: bool
) -> Generator[ImageBatch, None, None]:
    """Yield batches of `size` readable images, with the unreadable ones that arrived among them.

    The last batch may be smaller, and so is a batch whose first image has waited for `max_wait` seconds.
    Unreadable images that arrive while no readable one waits form batches without pixels.

    Raises:
        InputError: an image is unreadable, and `skip` is false.
    """
    names: list[tuple[str, str | None]] = []
    pixels: list[Pixels] = []
    first_arrival = 0.0
    with closing(images):
        for image in images:
            if image is not None:
                if image.error is not None and not skip:
                    raise suggest_skipping(image.error)
                first_arrival = first_arrival if names else image.arrived
                names.append((image.path, image.error))
                if image.pixels is not None:
                    pixels.append(image.pixels)
                due = len(pixels) in (0, size)
            else:
                due = bool(names) and time.monotonic() - first_arrival >= max_wait
            if due:
                yield ImageBatch(names, _stack_and_clear(pixels))
                names = []
        if names:
            yield ImageBatch(names, _stack_and_clear(pixels))


def _stack_and_clear(pixels: list[Pixels]) -> Pixels | None:
    """Return all images in one array; empty the list, so that they are in memory only once."""
    stacked = np.stack(pixels) if pixels else None
    pixels.clear()
    return stacked
