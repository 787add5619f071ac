"""The image files of a folder and of everything below it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..engine.errors import InputError
from .image_names import (
    SUFFIXES,
    describe_left_out,
    find_reason_to_leave_out,
    is_image_name,
    is_skipped_folder,
)


@dataclass(frozen=True)
class ImageListing:
    """Image files below a folder.

    Attributes:
        paths: ordered by their relative POSIX path.
        left_out: number of files by suffix that show images, but are not read.
    """

    paths: list[Path]
    left_out: Mapping[str, int] = field(default_factory=dict)


def list_images(folder: str | os.PathLike[str]) -> ImageListing:
    """List all image files below `folder`.

    A file counts by its suffix (one of `SUFFIXES`, in either case). Hidden files and folders are skipped, and
    so are folders that systems make; links to folders are not followed.

    Raises:
        InputError: `folder` is missing, is not a folder, cannot be read, or contains no image.
    """
    root = Path(folder)
    if not root.is_dir():
        actual = "a file" if root.exists() else "nothing"
        raise InputError(f"expected a folder of images, found {actual}: {root}; check the path")
    paths, left_out = [], Counter[str]()
    for at, names in _walk(root):
        paths += [Path(at, name) for name in names if is_image_name(name)]
        left_out.update(filter(None, (find_reason_to_leave_out(at, name) for name in names)))
    if not paths:
        raise InputError(describe_lack_of_images(root, left_out))
    return ImageListing(sorted(paths, key=lambda path: path.relative_to(root).as_posix()), left_out)


def describe_lack_of_images(folder: Path, left_out: Mapping[str, int], kind: str = "folder") -> str:
    """Return the message about a folder of some kind without an image that can be read."""
    others = f"; {described}" if (described := describe_left_out(left_out)) else ""
    return f"found no image in the {kind} {folder}; expected files ending in {', '.join(SUFFIXES)}{others}"


def _walk(root: Path) -> list[tuple[str, list[str]]]:
    def fail(error: OSError) -> None:
        raise InputError(f"cannot read the folder {error.filename}: {error.strerror}; check its permissions")

    visited = []
    for at, folders, names in os.walk(root, onerror=fail):
        folders[:] = [name for name in folders if not is_skipped_folder(name)]
        visited.append((at, names))
    return visited
