"""A watched folder, into which images are written while they are predicted."""

from __future__ import annotations

import math
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ...data.image_names import OTHER_SUFFIXES, is_image_name, is_skipped_folder
from ...engine.errors import InputError, reason

PATIENCE = 10.0  # seconds without a change after which an unreadable file is given up
TICK = 0.1  # longest time between two ticks, in seconds


@dataclass(frozen=True)
class _Pending:
    """A file that has not been predicted yet.

    Attributes:
        signature: time of modification in ns, and size in bytes, as last seen.
        changed: time at which this signature was first seen.
        due: time at which to yield the file, if it has not changed until then.
    """

    signature: tuple[int, int]
    changed: float
    due: float


class Watch:
    """The image files below a folder, each once, as soon as it is complete.

    Iterating yields paths, and None (a tick) at least every `TICK` seconds while there is nothing new. A
    file is yielded when two scans in a row find it unchanged; files of one scan come in the order of
    modification time, then of name. If a file cannot be read (`retry`), it is yielded again when it has
    changed, and a last time after `PATIENCE` seconds without a change. Files are identified by name: a file
    that is overwritten after it was read is not yielded again, unless a scan has found it missing. Names
    count as in `list_images`: by suffix, without hidden ones; links to folders are not followed.

    An instance belongs to one thread, and is iterated once.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        poll: float = 0.5,
        new_only: bool = False,
        seen: Iterable[str] = (),
        idle_exit: float | None = None,
        on_left_out: Callable[[str], None] = lambda suffix: None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Scan the folder for the first time.

        Args:
            folder: folder in which images appear.
            poll: shortest time between two scans, in seconds.
            new_only: ignore files that exist now.
            seen: paths that an earlier watch has yielded.
            idle_exit: seconds without a new or changed file after which to end; None is never.
            on_left_out: is called once with each suffix of images that are not read, when one appears.
            clock: returns the time in seconds.
            sleep: waits for a number of seconds.

        Raises:
            InputError: the folder, or a folder in it, cannot be read.
        """
        self._folder = os.fspath(folder)
        self._poll, self._idle_exit, self._clock, self._sleep = poll, idle_exit, clock, sleep
        self._on_left_out, self._left_out = on_left_out, set[str]()
        existing = list(self._list_images(strict=True))
        yielded = existing if new_only else set(existing) & set(seen)
        self._files: dict[str, _Pending | None] = dict.fromkeys(yielded)  # None: yielded
        self._last_yielded: dict[str, _Pending] = {}  # by the last scan
        self._ending = False

    @property
    def ignored(self) -> list[str]:
        """Files that exist and are not yielded, as they were before, or are to be ignored."""
        return [path for path, file in self._files.items() if file is None]

    def __iter__(self) -> Iterator[str | None]:
        """Scan repeatedly, and yield files that are due.

        Raises:
            InputError: the folder no longer exists.
        """
        active = self._clock()
        while True:
            now = self._clock()
            changed = self._scan(now)
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
        """Return whether an unreadable file will be yielded again even if it does not change.

        If not, it is still yielded again when it changes.
        """
        file = self._last_yielded[path]
        again = file.changed + PATIENCE
        last = self._ending or self._clock() >= again or not Path(path).exists()
        self._files[path] = replace(file, due=math.inf if last else again)
        return not last

    def _scan(self, now: float) -> bool:
        """Update `_files`; return whether a file is new or has changed."""
        before, self._files = self._files, {}
        changed = False
        for path in self._list_images():
            file = before.get(path)
            if file is not None or path not in before:  # not yielded yet
                signature = _read_signature(path)
                if signature is None:
                    continue
                if file is None or file.signature != signature:
                    changed, file = True, _Pending(signature, now, now)
            self._files[path] = file
        for path in before.keys() - self._files.keys():
            if not _is_gone(path):  # its folder could not be read this time
                self._files[path] = before[path]
        return changed

    def _list_images(self, *, strict: bool = False) -> Iterator[str]:
        """Yield the image files, and tell of suffixes that are left out."""
        for path in _list_files(self._folder, strict=strict):
            suffix = Path(path).suffix.lower()
            if is_image_name(Path(path).name):
                yield path
            elif suffix in OTHER_SUFFIXES and suffix not in self._left_out:
                self._left_out.add(suffix)
                self._on_left_out(suffix)

    def _take(self, until: float) -> list[str]:
        """Return the files that are due by then, in order, and mark them as yielded."""
        due = {path: file for path, file in self._files.items() if file and file.changed < until >= file.due}
        self._files.update(dict.fromkeys(due))
        self._last_yielded = due
        return sorted(due, key=lambda path: (due[path].signature[0], path))

    def _pause(self) -> Iterator[None]:
        """Yield ticks until the next scan."""
        end = self._clock() + self._poll
        yield None
        while (left := end - self._clock()) > 0:
            self._sleep(min(left, TICK))
            yield None


def _list_files(root: str, *, strict: bool) -> Iterator[str]:
    """Yield the files below a folder that are not hidden, in no order; skip what vanishes meanwhile.

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
                    f"cannot read the folder {folder}: {reason(error)}; check the path and its permissions"
                ) from error
            continue
        folders += [
            entry.path
            for entry in listed
            if entry.is_dir(follow_symlinks=False) and not is_skipped_folder(entry.name)
        ]
        yield from (entry.path for entry in listed if not entry.is_dir(follow_symlinks=False))


def _read_signature(path: str) -> tuple[int, int] | None:
    """Return time of modification in ns and size in bytes; None if there is no such file."""
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
