"""Batches in order, read ahead within bounds, and threads that end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
from fozo.data.loader import load_batches
from fozo.engine.errors import InputError
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


def image(index: int) -> Pixels:
    return np.full((4, 5, 3), index, dtype=np.uint8)


def loader_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("fozo-load")]


def wait_until(condition: Callable[[], bool], seconds: float = 5) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    return condition()


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("batch_size", [1, 3, 8, 50])
def test_order_is_kept_and_the_last_batch_may_be_smaller(workers: int, batch_size: int) -> None:
    order = np.random.default_rng(0).permutation(20)

    def load(index: int) -> Pixels:
        time.sleep(0.002 * (index % 3))  # later ones finish earlier
        return image(index)

    batches = list(load_batches(load, order, batch_size, workers=workers))
    full, rest = divmod(20, batch_size)
    assert [len(batch) for batch in batches] == [batch_size] * full + [rest] * (rest > 0)
    together = np.concatenate(batches)
    assert together.shape == (20, 4, 5, 3)
    assert together.dtype == np.uint8
    assert np.array_equal(together[:, 0, 0, 0], order)


def test_indices_may_repeat_and_reach_load_as_plain_integers() -> None:
    seen: list[type] = []

    def load(index: int) -> Pixels:
        seen.append(type(index))
        return image(index)

    batches = list(load_batches(load, np.array([3, 3, 1], dtype=np.int32), 2))
    assert np.concatenate(batches)[:, 0, 0, 0].tolist() == [3, 3, 1]
    assert set(seen) == {int}


def test_no_indices_give_no_batches_and_no_threads() -> None:
    assert list(load_batches(image, [], 4)) == []
    assert loader_threads() == []


def test_batches_are_independent_arrays() -> None:
    batches = load_batches(image, range(8), 4)
    first = next(batches)
    kept = first.copy()
    assert not np.shares_memory(first, next(batches))
    assert np.array_equal(first, kept)
    batches.close()


@pytest.mark.parametrize("prefetch", [1, 2, 3])
def test_reading_ahead_is_bounded(prefetch: int) -> None:
    lock, count = threading.Lock(), 0

    def load(index: int) -> Pixels:
        nonlocal count
        with lock:
            count += 1
        return image(index)

    batch_size = 4
    batches = load_batches(load, range(100), batch_size, workers=3, prefetch=prefetch)
    for taken in range(1, 5):
        next(batches)
        bound = batch_size * (taken + prefetch)
        assert wait_until(lambda bound=bound: count == bound)  # type: ignore[misc]  # it does read ahead ...
        time.sleep(0.03)
        assert count == bound  # ... and no further
    batches.close()
    assert count == bound


def test_an_exception_reaches_the_caller_in_its_turn() -> None:
    def load(index: int) -> Pixels:
        if index == 5:
            raise InputError("image 5 is damaged")
        return image(index)

    batches = load_batches(load, range(12), 4)
    assert next(batches)[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    with pytest.raises(InputError, match="image 5 is damaged"):
        next(batches)
    assert loader_threads() == []
    with pytest.raises(StopIteration):
        next(batches)


def test_closing_early_cancels_what_has_not_begun_and_joins() -> None:
    started: list[int] = []

    def load(index: int) -> Pixels:
        started.append(index)
        time.sleep(0.01)
        return image(index)

    batches = load_batches(load, range(1000), 10, workers=2, prefetch=3)
    next(batches)
    begun = len(started)
    batches.close()
    assert len(started) <= begun + 2  # those that were running
    assert loader_threads() == []


def test_an_interrupt_while_waiting_joins_the_threads() -> None:
    def load(index: int) -> Pixels:
        if index == 3:
            raise KeyboardInterrupt
        return image(index)

    with pytest.raises(KeyboardInterrupt):
        list(load_batches(load, range(100), 2))
    assert loader_threads() == []


@pytest.mark.parametrize("odd", [1, 6])
def test_another_shape_is_refused_by_index(odd: int) -> None:
    def load(index: int) -> Pixels:
        return np.zeros((4, 6 if index == odd else 5, 3), dtype=np.uint8)

    with pytest.raises(InputError, match=rf"\(4, 5, 3\).*found uint8 of shape \(4, 6, 3\) at index {odd};"):
        list(load_batches(load, range(8), 4))


def test_another_type_is_refused_instead_of_wrapping_around() -> None:
    def load(index: int) -> Pixels:
        return np.full((2, 2, 3), 300.0)

    with pytest.raises(InputError, match="found float64"):
        list(load_batches(load, range(3), 2))


@pytest.mark.parametrize("name", ["batch_size", "workers", "prefetch"])
def test_numbers_below_one_are_refused_at_once(name: str) -> None:
    numbers = {"batch_size": 2, "workers": 2, "prefetch": 2, name: 0}
    with pytest.raises(InputError, match=f"{name} of at least 1, found 0"):
        load_batches(image, range(3), **numbers)


def test_four_workers_overlap() -> None:
    barrier = threading.Barrier(4)

    def load(index: int) -> Pixels:
        barrier.wait(timeout=10)  # passes only if four loads run at once
        return image(index)

    assert len(list(load_batches(load, range(8), 4, workers=4))) == 2
