"""Where a stream of images comes from: files, folders, patterns, a list, or a folder that is watched."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO

from ...data.images import list_images
from ...engine.errors import InputError
from .watch import Watch

STANDARD = "-"  # standard input or output


@dataclass(frozen=True)
class Arriving:
    """Paths in order, how many if that is known, and whether an unreadable one will come again."""

    paths: Iterable[str | None]
    count: int | None
    retry: Callable[[str], bool] = lambda path: False


def watched(folder: Path, poll: float, new_only: bool, idle_exit: float | None) -> Arriving:
    """What is written into a folder; the arguments are those of `Watch`."""
    watch = Watch(folder, poll=poll, new_only=new_only, idle_exit=idle_exit)
    return Arriving(watch, None, watch.retry)


def named(inputs: Sequence[str]) -> Arriving:
    """The images behind the arguments, in their order; all but those on standard input must exist."""
    if inputs.count(STANDARD) > 1:
        raise InputError(
            f"expected {STANDARD}, standard input, once, found it {inputs.count(STANDARD)} times"
        )
    found = {text: _found(text) for text in inputs if text != STANDARD}
    if len(found) == len(set(inputs)):
        return Arriving(chain(*(found[text] for text in inputs)), sum(len(found[text]) for text in inputs))
    lines = _lines(sys.stdin.buffer)
    return Arriving(chain(*(found.get(text, lines) for text in inputs)), None)


def _found(text: str) -> list[str]:
    """The images that an argument stands for: a file, all those of a folder, or what a pattern matches."""
    matches = [text]
    try:
        Path(text).stat()
    except (OSError, ValueError) as error:
        matches = sorted(glob.glob(text, recursive=True))  # noqa: PTH207 (may be absolute)
        if not matches:
            raise InputError(
                f"expected a file, a folder or a pattern that matches, found nothing at {text}; check it"
            ) from error
    found: list[str] = []
    for match in matches:
        found += map(str, list_images(match)) if Path(match).is_dir() else [match]
    return found


def _lines(stream: IO[bytes]) -> Iterator[str]:
    """Paths, one per line, as they come; empty lines are left out."""
    for line in stream:
        if b"\0" in line:
            raise InputError(
                "expected one path per line on standard input, found a NUL byte; use find -print"
            )
        if name := line.rstrip(b"\r\n"):
            yield os.fsdecode(name)
