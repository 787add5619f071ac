"""Work in several processes that stops in order: after Ctrl-C, an error, and if this process is killed."""

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

AHEAD = 4  # tasks that wait for each process

T = TypeVar("T")


def in_processes(
    function: Callable[..., T], tasks: Iterable[tuple[Any, ...]], workers: int
) -> Generator[T, None, None]:
    """Yields `function(*task)` for each task in turn.

    Closing the iterator drops the tasks that have not begun and waits for those that have.

    Args:
        function: at the top level of a module, so that another process can import it.
        tasks: its arguments; taken only a few at a time.
        workers: processes, at least 1; with 1 there is no other process than this one.

    Raises:
        ComputeError: a process ended, most often for lack of memory.
        Exception: what `function` raises.
    """
    if workers == 1:
        yield from (function(*task) for task in tasks)
        return
    pool = ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=_begin_process
    )

    def submit(task: tuple[Any, ...]) -> Future[T]:
        with _interrupts_held():
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
            "a process ended before its work was done, most often for lack of memory; use fewer --workers"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """A process that starts in here is blind to Ctrl-C from its first moment; this one gets it afterwards.

    Blocking the signal in this thread is what children inherit. It is not enough for this process: another
    thread may take it, a library's for instance, and Python would still raise in here.
    """
    aside = threading.current_thread() is not threading.main_thread()
    if aside or not hasattr(signal, "pthread_sigmask"):  # where handlers cannot be set, or on Windows
        yield
        return
    came: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        signal.signal(signal.SIGINT, handler)
        if came:
            signal.raise_signal(signal.SIGINT)


def _begin_process() -> None:
    """Leaves Ctrl-C to the parent, which stops in order, and ends with the parent even if that is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)
