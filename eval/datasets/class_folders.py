"""Listings of images in class folders, checked for everything that can be wrong with them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...data.image_listing import describe_lack_of_images
from ...data.image_names import find_reason_to_leave_out, is_image_name, is_skipped_folder
from ...engine.bundle.manifest import Manifest
from ...engine.errors import InputError
from .nearby_folders import advise_folders

IMAGENET_CLASSES = 1000


@dataclass(frozen=True)
class ClassFolders:
    """The images in `<folder>/<class>/<image>`.

    Attributes:
        folder: folder that holds the class folders.
        ids: `<class>/<image>` of every image, ordered. Paths are not kept: ImageNet-C has 750,000 images.
        classes: names of the class folders, ordered.
        left_out: number of other files by suffix that show images, but are not read.
    """

    folder: Path
    ids: tuple[str, ...]
    classes: tuple[str, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)

    def label_images(self, index: Mapping[str, int]) -> NDArray[np.int64]:
        """Return the class of each image, int64 `[N]`, given the index of each class folder."""
        return np.array([index[identifier.partition("/")[0]] for identifier in self.ids], np.int64)

    def find_missing(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return those of the names that no class folder has."""
        present = set(self.classes)
        return tuple(name for name in names if name not in present)

    def find_missing_from(self, other: ClassFolders) -> tuple[str, ...]:
        """Return the class folders that another listing does not have."""
        return other.find_missing(self.classes)


@dataclass(frozen=True)
class FolderEntries:
    """The content of a folder.

    Attributes:
        folders: names of the folders, sorted.
        images: names of the image files, sorted.
        left_out: number of other files by suffix that show images, but are not read.
    """

    folders: list[str]
    images: list[str]
    left_out: Counter[str]


def list_class_folders(folder: Path) -> ClassFolders:
    """List `<folder>/<class>/<image>`.

    A file counts as an image by its suffix. Hidden files and folders are skipped, and folders that systems
    make; links are followed.

    Args:
        folder: folder that holds the class folders.

    Raises:
        InputError: the folder is missing, cannot be read or has no image; an image lies higher or lower than
            in a class folder; a class folder has no image; or a link leads nowhere.
    """
    top = list_entries(folder)
    if top.images:
        more = f" and {len(top.images) - 1} more" if len(top.images) > 1 else ""
        above = "" if top.folders else f", or name the folder above, if {folder.name} is a class"
        raise InputError(
            f"expected {folder}/<class>/<image>, found {folder}/{top.images[0]}{more}; put every image into "
            f"the folder of its class{above}"
        )
    entries = {name: list_entries(folder / name) for name in top.folders}
    if deeper := [path for name, listed in entries.items() for path in _find_images(folder / name, listed)]:
        raise InputError(
            f"expected {folder}/<class>/<image>, found {deeper[0]}; put every image into the folder of its "
            f"class, or name the folder that holds the class folders"
            f"{advise_folders(path.parent.parent for path in deeper if path.parent.parent != folder)}"
        )
    left_out = sum((listed.left_out for listed in entries.values()), top.left_out)
    empty = [name for name, listed in entries.items() if not listed.images]
    if len(empty) == len(entries):
        raise InputError(f"{describe_lack_of_images(folder, left_out)}. Expected {folder}/<class>/<image>")
    if empty:
        raise InputError(
            f"{describe_lack_of_images(folder / empty[0], entries[empty[0]].left_out, 'class folder')}"
            f"{f'. {len(empty) - 1} more class folders are like it' if len(empty) > 1 else ''}. Complete it, "
            "or move it elsewhere"
        )
    ids = tuple(sorted(f"{name}/{image}" for name, listed in entries.items() for image in listed.images))
    return ClassFolders(folder, ids, tuple(top.folders), left_out)


def list_entries(folder: Path) -> FolderEntries:
    """Return the content of a folder, without what is hidden or made by a system.

    Raises:
        InputError: the folder is missing or cannot be read, a link in it leads nowhere or in a circle, or a
            name is not text.
    """
    try:
        if not folder.is_dir():
            kind = "a file" if folder.exists() else "nothing"
            raise InputError(f"expected a folder of images, found {kind}: {folder}; check the path")
        return _scan_entries(folder)
    except OSError as error:
        raise InputError(
            f"cannot read the folder {folder}: {error.strerror}; check its permissions"
        ) from error
    except UnicodeEncodeError as error:
        raise InputError(
            f"expected names of files in UTF-8, found {error.object!a} in {folder}; rename it"
        ) from error


def list_official_classes(manifest: Manifest) -> Sequence[str]:
    """Return ImageNet's class folders for a bundle; none if it has more classes, or no names for them."""
    return manifest.class_ids if manifest.class_ids and manifest.classes <= IMAGENET_CLASSES else ()


def _find_images(folder: Path, entries: FolderEntries) -> Iterator[Path]:
    """Yield the first image in each folder below a folder, where there is one."""
    for name in entries.folders:
        for at, below, files in os.walk(folder / name):
            below[:] = [child for child in below if not is_skipped_folder(child)]
            if image := next((file for file in files if is_image_name(file)), None):
                yield Path(at, image)
                break


def _scan_entries(folder: Path) -> FolderEntries:
    """List a folder without a `Path` or a further system call per entry, for folders with many files."""
    folders, images, left_out = [], [], Counter[str]()
    with os.scandir(folder) as scan:
        for entry in scan:
            if entry.name.startswith("."):
                continue
            entry.name.encode()  # bytes that are no text could be neither hashed nor printed
            if entry.is_symlink() and not os.path.exists(entry.path):  # noqa: PTH110
                raise InputError(
                    "expected a file or a folder, found a link that leads nowhere or in a circle: "
                    f"{entry.path}; mend or remove it"
                )
            if entry.is_dir():
                folders += [] if is_skipped_folder(entry.name) else [entry.name]
            elif is_image_name(entry.name):
                images.append(entry.name)
            elif kind := find_reason_to_leave_out(os.fspath(folder), entry.name):
                left_out[kind] += 1
    return FolderEntries(sorted(folders), sorted(images), left_out)
