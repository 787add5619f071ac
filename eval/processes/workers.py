"""Work in several processes that stops cleanly after Ctrl-C, an error, or the end of this process."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

from ...engine.errors import ComputeError

AHEAD = 4  # queued tasks per process

T = TypeVar("T")


def run_in_processes(
    function: Callable[..., T], tasks: Iterable[tuple[Any, ...]], workers: int
) -> Generator[T, None, None]:
    """Yield `function(*task)` for each task in turn.

    Closing the generator drops the tasks that have not started and waits for the others.

    Args:
        function: a function at the top level of a module, so that another process can import it.
        tasks: arguments of the calls; consumed only a few at a time.
        workers: number of processes, at least 1; 1 computes in this process.

    Raises:
        ComputeError: a process died, most often for lack of memory.
        Exception: raised by `function`.
    """
    if workers == 1:
        yield from (function(*task) for task in tasks)
        return
    pool = ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=_begin_process
    )

    def submit(task: tuple[Any, ...]) -> Future[T]:
        with _hold_interrupts():
            return pool.submit(function, *task)

    futures = map(submit, tasks)
    try:
        waiting: deque[Future[T]] = deque(islice(futures, AHEAD * workers))
        while waiting:
            done = waiting.popleft().result()
            waiting.extend(islice(futures, 1))
            yield done
    except BrokenProcessPool as error:
        raise ComputeError(
            "a process ended before its work was done, most often for lack of memory; use fewer --processes"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _hold_interrupts() -> Iterator[None]:
    """Defer Ctrl-C, also in processes that are started meanwhile.

    Children inherit the signal mask of this thread. For this process the mask is not enough: another thread,
    of a library for instance, may receive the signal, and Python would still raise here.
    """
    in_thread = threading.current_thread() is not threading.main_thread()
    if in_thread or not hasattr(signal, "pthread_sigmask"):  # where handlers cannot be set, or on Windows
        yield
        return
    received: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, frame: received.append(number))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        signal.signal(signal.SIGINT, handler)
        if received:
            signal.raise_signal(signal.SIGINT)


def _begin_process() -> None:
    """Ignore Ctrl-C, which the parent handles, and end with the parent even if that is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)
