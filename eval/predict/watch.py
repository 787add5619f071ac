"""A folder that images are written into while they are predicted."""

from __future__ import annotations

import math
import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ...data.images import is_image_name
from ...engine.errors import InputError

PATIENCE = 10.0  # seconds that an unreadable file is left unchanged until it is given up
TICK = 0.1  # seconds at most between two ticks


@dataclass(frozen=True)
class _Pending:
    """A file that has not been predicted yet.

    Attributes:
        signature: time of modification in ns, and size in bytes, as last seen.
        changed: when that was first seen.
        due: when to take it, if it is still the same then.
    """

    signature: tuple[int, int]
    changed: float
    due: float


class Watch:
    """The image files below a folder, each once, as soon as it is complete.

    Iterating gives paths, and None (a tick) at least every `TICK` seconds while there is nothing new. A file
    is taken when two looks in a row find it unchanged; those of one look in the order of modification time,
    then of name. If it cannot be read even so (`retry`), it is taken again when it has changed, and a last
    time after `PATIENCE` seconds without a change. Files are told apart by name: one that is overwritten
    after it was read is not taken again, unless a look found it gone. Names count as in `list_images`: by
    suffix, without hidden ones; links to folders are not followed.

    An instance belongs to one thread, and is iterated once.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        poll: float = 0.5,
        new_only: bool = False,
        idle_exit: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Looks at what is there now.

        Args:
            folder: where images appear.
            poll: seconds from one look to the next, at least.
            new_only: leave out files that are there now.
            idle_exit: end when no file has appeared or changed for so many seconds; None is never.
            clock: gives seconds.
            sleep: waits for seconds.

        Raises:
            InputError: the folder, or a folder in it, cannot be read.
        """
        self._folder = os.fspath(folder)
        self._poll, self._idle_exit, self._clock, self._sleep = poll, idle_exit, clock, sleep
        old = list(_image_files(self._folder, strict=True))
        self._files: dict[str, _Pending | None] = dict.fromkeys(old) if new_only else {}  # None: taken
        self._taken: dict[str, _Pending] = {}  # at the last look
        self._ending = False

    def __iter__(self) -> Iterator[str | None]:
        """Looks again and again.

        Raises:
            InputError: the folder is no longer there.
        """
        active = self._clock()
        while True:
            now = self._clock()
            changed = self._look(now)
            ready = self._take(now)
            yield from ready
            if changed:
                active = now
            elif not ready and self._idle_exit is not None and now - active >= self._idle_exit:
                self._ending = True
                yield from self._take(now + PATIENCE)
                return
            yield from self._pause()

    def retry(self, path: str) -> bool:
        """Whether a file that was taken but cannot be read is given another chance.

        If not, it is still taken again should it change one day.
        """
        file = self._taken[path]
        again = file.changed + PATIENCE
        last = self._ending or self._clock() >= again or not Path(path).exists()
        self._files[path] = replace(file, due=math.inf if last else again)
        return not last

    def _look(self, now: float) -> bool:
        """Brings `_files` up to date; whether something is new or has changed."""
        before, self._files = self._files, {}
        changed = False
        for path in _image_files(self._folder):
            file = before.get(path)
            if file is not None or path not in before:  # not taken yet
                signature = _signature(path)
                if signature is None:
                    continue
                if file is None or file.signature != signature:
                    changed, file = True, _Pending(signature, now, now)
            self._files[path] = file
        for path in before.keys() - self._files.keys():
            if not _is_gone(path):  # its folder could not be read this time
                self._files[path] = before[path]
        return changed

    def _take(self, until: float) -> list[str]:
        """The files that are due by then, in order; they count as taken from here on."""
        due = {path: file for path, file in self._files.items() if file and file.changed < until >= file.due}
        self._files.update(dict.fromkeys(due))
        self._taken = due
        return sorted(due, key=lambda path: (due[path].signature[0], path))

    def _pause(self) -> Iterator[None]:
        """Ticks until the next look."""
        end = self._clock() + self._poll
        yield None
        while (left := end - self._clock()) > 0:
            self._sleep(min(left, TICK))
            yield None


def _image_files(root: str, strict: bool = False) -> Iterator[str]:
    """Paths of the image files below a folder, in no order; what vanishes meanwhile is left out.

    Raises:
        InputError: the folder cannot be read, or when `strict`, a folder in it.
    """
    folders = [root]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder) as entries:
                listed = [entry for entry in entries if not entry.name.startswith(".")]
        except OSError as error:
            if folder == root or (strict and not isinstance(error, FileNotFoundError)):
                raise InputError(
                    f"cannot read the folder {folder}: {error.strerror or error}; check the path and its "
                    "permissions"
                ) from error
            continue
        folders += [entry.path for entry in listed if entry.is_dir(follow_symlinks=False)]
        yield from (entry.path for entry in listed if is_image_name(entry.name))


def _signature(path: str) -> tuple[int, int] | None:
    """Time of modification in ns and size in bytes; None for what is no file, or is gone."""
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return (status.st_mtime_ns, status.st_size) if stat.S_ISREG(status.st_mode) else None


def _is_gone(path: str) -> bool:
    try:
        Path(path).lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        pass
    return False
