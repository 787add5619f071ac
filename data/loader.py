"""Batches of decoded images, read ahead in background threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice

import numpy as np
from numpy.typing import NDArray

from ..engine.errors import InputError

Pixels = NDArray[np.uint8]


def load_batches(
    load: Callable[[int], Pixels | None],
    order: Sequence[int] | NDArray[np.integer],
    batch_size: int,
    workers: int = 2,
    prefetch: int = 1,
) -> Generator[Pixels, None, None]:
    """Yield the images `load(i)` for i in `order`, in that order, as uint8 batches [B, H, W, 3].

    The last batch may be smaller, and so is one of which images are left out; it may even be empty. Beside
    the batch that the caller holds, at most `prefetch` further ones are in memory. An exception in `load`
    reaches the caller when the batch it belongs to is due. Closing the generator (or an exception inside it)
    drops the work that has not begun and waits for the threads; wrap it in `contextlib.closing` to be sure of
    that where the loop may end early.

    Args:
        load: returns one image, uint8 [H, W, 3], or None to leave it out of its batch; called from several
            threads at once.
        order: the indices to load.
        batch_size: images per batch, at least 1.
        workers: threads, at least 1.
        prefetch: batches to read ahead, at least 1.

    Raises:
        InputError: a number is below 1 (at once), or an image is not uint8 or differs in shape from the
            first (while iterating).
    """
    for name, value in (("batch_size", batch_size), ("workers", workers), ("prefetch", prefetch)):
        if value < 1:
            raise InputError(f"expected {name} of at least 1, found {value}; pass a larger number")
    indices = [int(i) for i in order]
    return _load_batches(load, indices, batch_size, workers, prefetch * batch_size)


def count_batches(batches: Iterable[Pixels], on_batch: Callable[[int], None]) -> Iterator[Pixels]:
    """Yield the same batches, and call `on_batch` with the number of images of each after it was used."""
    for batch in batches:
        yield batch
        on_batch(len(batch))


def _load_batches(
    load: Callable[[int], Pixels | None], indices: list[int], batch_size: int, workers: int, read_ahead: int
) -> Generator[Pixels, None, None]:
    pool = ThreadPoolExecutor(workers, thread_name_prefix="fozo-load")
    try:
        images = _load_in_order(pool, load, indices, read_ahead)
        shape: tuple[int, ...] | None = None
        for start in range(0, len(indices), batch_size):
            batch = _stack(images, indices[start : start + batch_size], shape)
            shape = batch.shape[1:] if len(batch) else shape
            yield batch
            del batch
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _load_in_order(
    pool: ThreadPoolExecutor, load: Callable[[int], Pixels | None], indices: Iterable[int], read_ahead: int
) -> Iterator[Pixels | None]:
    """Yield one image after the other, with at most `read_ahead` of them submitted and not yet yielded."""
    futures = (pool.submit(load, index) for index in indices)
    waiting: deque[Future[Pixels | None]] = deque(islice(futures, read_ahead))
    while waiting:
        image = waiting.popleft().result()
        waiting.extend(islice(futures, 1))
        yield image


def _stack(images: Iterator[Pixels | None], indices: list[int], shape: tuple[int, ...] | None) -> Pixels:
    """Stack the next `len(indices)` images in one array, all of the given shape or of the first one's."""
    present = ((index, image) for index, image in zip(indices, images, strict=False) if image is not None)
    first = next(present, None)
    if first is None:
        return np.empty((0, *(shape or (0, 0, 3))), np.uint8)
    shape = shape or first[1].shape
    batch, count = np.empty((len(indices), *shape), dtype=np.uint8), 0
    for index, image in chain([first], present):
        if image.shape != shape or image.dtype != np.uint8:
            raise InputError(
                f"expected uint8 images of shape {shape} like the first, found {image.dtype} of shape "
                f"{image.shape} at index {index}; bring all images to one size"
            )
        batch[count] = image
        count += 1
    return batch[:count]
