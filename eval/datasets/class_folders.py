"""Listings of images in class folders, checked for everything that can be wrong with them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...data.images import SUFFIXES, is_image_name
from ...engine.bundle.manifest import Manifest
from ...engine.errors import InputError

IMAGENET_CLASSES = 1000


@dataclass(frozen=True)
class ClassFolders:
    """The images in `<folder>/<class>/<image>`.

    Attributes:
        folder: folder that holds the class folders.
        ids: `<class>/<image>` of every image, ordered. Paths are not kept: ImageNet-C has 750,000 images.
        classes: names of the class folders, ordered.
    """

    folder: Path
    ids: tuple[str, ...]
    classes: tuple[str, ...]

    def label_images(self, index: Mapping[str, int]) -> NDArray[np.int64]:
        """Return the class of each image, int64 `[N]`, given the index of each class folder."""
        return np.array([index[identifier.partition("/")[0]] for identifier in self.ids], np.int64)

    def find_missing(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return those of the names that no class folder has."""
        present = set(self.classes)
        return tuple(name for name in names if name not in present)


def list_class_folders(folder: Path) -> ClassFolders:
    """List `<folder>/<class>/<image>`.

    A file counts as an image by its suffix. Hidden files and folders are skipped, links are followed.

    Raises:
        InputError: the folder is missing, cannot be read or has no image; an image lies higher or lower than
            in a class folder; a class folder has no image; or a link leads nowhere.
    """
    classes, loose = list_entries(folder)
    if loose:
        more = f" and {len(loose) - 1} more" if len(loose) > 1 else ""
        raise InputError(
            f"expected {folder}/<class>/<image>, found {folder}/{loose[0]}{more}; put every image into the "
            "folder of its class"
        )
    images_by_class = {name: _list_images_of_class(folder / name) for name in classes}
    empty = [name for name, images in images_by_class.items() if not images]
    if len(empty) == len(classes):
        raise InputError(
            f"found no image in the folder {folder}; expected {folder}/<class>/<image> with files ending in "
            f"{', '.join(SUFFIXES)}"
        )
    if empty:
        raise InputError(
            f"found no image in the class folder {folder / empty[0]}"
            f"{f' and {len(empty) - 1} more' if len(empty) > 1 else ''}; expected files ending in "
            f"{', '.join(SUFFIXES)}: complete it, or move it elsewhere"
        )
    ids = tuple(sorted(f"{name}/{image}" for name, images in images_by_class.items() for image in images))
    return ClassFolders(folder, ids, tuple(classes))


def list_entries(folder: Path) -> tuple[list[str], list[str]]:
    """Return the names of the folders and of the image files in a folder, each sorted; skip hidden ones.

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


def _list_images_of_class(folder: Path) -> list[str]:
    deeper, images = list_entries(folder)
    for name in deeper:
        for at, _, files in os.walk(folder / name):
            if image := next((file for file in files if is_image_name(file)), None):
                raise InputError(
                    f"expected {folder.parent}/<class>/<image>, found {Path(at, image)}; put every image "
                    "into the folder of its class, or name the folder that holds the class folders"
                )
    return images


def _scan_entries(folder: Path) -> tuple[list[str], list[str]]:
    """List a folder without a `Path` or a further system call per entry, for folders with many files."""
    folders, images = [], []
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
                folders.append(entry.name)
            elif is_image_name(entry.name):
                images.append(entry.name)
    return sorted(folders), sorted(images)
