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

from ...data.image_listing import list_images
from ...data.image_names import is_system_folder
from ...data.image_reader import ImageReader
from ...engine.errors import InputError
from .seen_images import SeenImages
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


def watch_folder(
    folder: Path,
    poll: float,
    new_only: bool,
    idle_exit: float | None,
    memory: SeenImages | None = None,
    on_left_out: Callable[[str], None] = lambda suffix: None,
) -> ImagePaths:
    """Return the images that are written into a folder.

    Args:
        folder, poll, idle_exit, on_left_out: as for `Watch`.
        new_only: ignore images that exist now; if a memory exists, those that it holds.
        memory: images that earlier runs have taken, which are not taken again. A new one is saved at once, so
            that it holds the ignored images however this run ends.
    """
    fresh = memory is None or memory.is_new
    seen = () if memory is None else memory.paths
    watch = Watch(
        folder,
        poll=poll,
        new_only=new_only and fresh,
        seen=seen,
        idle_exit=idle_exit,
        on_left_out=on_left_out,
    )
    if memory is not None and fresh:
        memory.add(watch.ignored)
        memory.save()
    return ImagePaths(watch, None, watch.retry)


def resolve_inputs(inputs: Sequence[str], reader: ImageReader | None = None) -> ImagePaths:
    """Return the images that arguments stand for, in their order.

    Args:
        inputs: files, folders, patterns, and at most once `-` for a list on standard input.
        reader: is told of files that show images, but are not read; None for nobody.

    Raises:
        InputError: `-` occurs twice, or an argument matches nothing. Paths on standard input are not checked.
    """
    if inputs.count(STANDARD) > 1:
        raise InputError(
            f"expected {STANDARD}, standard input, once, found it {inputs.count(STANDARD)} times"
        )
    reader = reader or ImageReader()
    expanded = {text: _expand(text, reader) for text in inputs if text != STANDARD}
    if len(expanded) == len(set(inputs)):
        paths = chain(*(expanded[text] for text in inputs))
        return ImagePaths(paths, sum(len(expanded[text]) for text in inputs))
    lines = _read_lines(sys.stdin.buffer)
    return ImagePaths(chain(*(expanded.get(text, lines) for text in inputs)), None)


def _expand(text: str, reader: ImageReader) -> list[str]:
    """Return the images of an argument: a file, all those of a folder, or all that a pattern matches."""
    matches = [text]
    try:
        Path(text).stat()
    except (OSError, ValueError) as error:
        matches = _match_pattern(text)
        if not matches:
            raise InputError(
                f"expected a file, a folder or a pattern that matches, found nothing at {text}; check it"
            ) from error
    images: list[str] = []
    for match in matches:
        if Path(match).is_dir():
            listing = list_images(match)
            images += map(str, listing.paths)
            reader.left_out[match] = listing.left_out
        else:
            images.append(match)
    return images


def _match_pattern(text: str) -> list[str]:
    """Return what a pattern matches, sorted, without folders that systems make unless it names them."""
    matches = sorted(glob.glob(text, recursive=True))  # noqa: PTH207 (may be absolute)
    named = set(Path(text).parts)
    return [match for match in matches if not any(map(is_system_folder, set(Path(match).parts) - named))]


def _read_lines(stream: IO[bytes]) -> Iterator[str]:
    """Yield paths, one per line, as they arrive; empty lines are skipped."""
    for line in stream:
        if b"\0" in line:
            raise InputError(
                "expected one path per line on standard input, found a NUL byte; use find -print"
            )
        if name := line.rstrip(b"\r\n"):
            yield os.fsdecode(name)
