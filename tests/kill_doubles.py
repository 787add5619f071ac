"""Writers that are killed at every step on disk: import with `from kill_doubles import …`."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

_EVENTS = {"os.rename", "os.link", "os.remove", "os.rmdir", "os.mkdir"}
_WRITING = os.O_WRONLY | os.O_RDWR


class _Countdown:
    """Kills this process, without any cleaning up, before its n-th step on disk."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def step(self) -> None:
        self.steps -= 1
        if self.steps < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self) -> None:
        """Count names that change, files opened for writing, syncs, and writes, of which half is done."""
        sync, open_path = os.fsync, Path.open

        def count_sync(descriptor: int) -> None:
            self.step()
            sync(descriptor)

        def open_counted(path: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
            stream = open_path(path, mode, *arguments, **options)
            return _HalfWriter(stream, self) if mode in ("wb", "xb") else stream

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            if event in _EVENTS or (event == "open" and (arguments[2] or 0) & _WRITING):
                self.step()

        os.fsync, Path.open = count_sync, open_counted  # type: ignore[assignment, method-assign]
        sys.addaudithook(hook)


class _HalfWriter:
    """A stream whose process may be killed in the middle of a write."""

    def __init__(self, stream: Any, countdown: _Countdown) -> None:
        self._stream, self._countdown = stream, countdown

    def write(self, content: bytes) -> None:
        half = len(content) // 2
        self._stream.write(content[:half])
        self._stream.flush()
        self._countdown.step()
        self._stream.write(content[half:])

    def __enter__(self) -> _HalfWriter:
        return self

    def __exit__(self, *error: Any) -> None:
        self._stream.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def iterate_kills(prepare: Callable[[], object], write: Callable[[], object]) -> Iterator[int]:
    """Kill `write` before each of its steps on disk in turn, and yield the step after each kill.

    Args:
        prepare: makes the state before; called before every attempt.
        write: called in a child process.
    """
    if not hasattr(os, "fork"):
        pytest.skip("needs fork")
    for step in range(1000):
        prepare()
        if _run_in_child(write, step) == 0:
            assert step > 5, "the steps of the writer were not seen"
            return
        yield step
    raise AssertionError("the writer does not end")


def _run_in_child(write: Callable[[], object], steps: int) -> int:
    """Return 0 if the child finished and -9 if it was killed."""
    child = os.fork()
    if not child:
        try:
            _Countdown(steps).watch()
            write()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL), "the writer failed"
    return status
