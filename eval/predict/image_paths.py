"""Paths of the images to predict: files, folders, patterns, a list, or a watched folder."""

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
class ImagePaths:
    """Paths of images, in the order in which to predict them.

    Attributes:
        paths: the paths; None while nothing arrives.
        count: how many there are; None if unknown.
        retry: returns true if an unreadable file will arrive again.
    """

    paths: Iterable[str | None]
    count: int | None
    retry: Callable[[str], bool] = lambda path: False


def watch_folder(folder: Path, poll: float, new_only: bool, idle_exit: float | None) -> ImagePaths:
    """Return the images that are written into a folder; the arguments are those of `Watch`."""
    watch = Watch(folder, poll=poll, new_only=new_only, idle_exit=idle_exit)
    return ImagePaths(watch, None, watch.retry)


def resolve_inputs(inputs: Sequence[str]) -> ImagePaths:
    """Return the images that arguments stand for, in their order.

    Args:
        inputs: files, folders, patterns, and at most once `-` for a list on standard input.

    Raises:
        InputError: `-` occurs twice, or an argument matches nothing. Paths on standard input are not checked.
    """
    if inputs.count(STANDARD) > 1:
        raise InputError(
            f"expected {STANDARD}, standard input, once, found it {inputs.count(STANDARD)} times"
        )
    expanded = {text: _expand(text) for text in inputs if text != STANDARD}
    if len(expanded) == len(set(inputs)):
        paths = chain(*(expanded[text] for text in inputs))
        return ImagePaths(paths, sum(len(expanded[text]) for text in inputs))
    lines = _read_lines(sys.stdin.buffer)
    return ImagePaths(chain(*(expanded.get(text, lines) for text in inputs)), None)


def _expand(text: str) -> list[str]:
    """Return the images of an argument: a file, all those of a folder, or all that a pattern matches."""
    matches = [text]
    try:
        Path(text).stat()
    except (OSError, ValueError) as error:
        matches = sorted(glob.glob(text, recursive=True))  # noqa: PTH207 (may be absolute)
        if not matches:
            raise InputError(
                f"expected a file, a folder or a pattern that matches, found nothing at {text}; check it"
            ) from error
    images: list[str] = []
    for match in matches:
        images += map(str, list_images(match)) if Path(match).is_dir() else [match]
    return images


def _read_lines(stream: IO[bytes]) -> Iterator[str]:
    """Yield paths, one per line, as they arrive; empty lines are skipped."""
    for line in stream:
        if b"\0" in line:
            raise InputError(
                "expected one path per line on standard input, found a NUL byte; use find -print"
            )
        if name := line.rstrip(b"\r\n"):
            yield os.fsdecode(name)
