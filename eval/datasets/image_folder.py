"""Images in one folder per class, as domains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ...data.image_reader import ImageReader
from ...engine.bundle.manifest import Manifest
from .class_folders import ClassFolders, list_class_folders, list_official_classes
from .class_order import index_classes
from .dataset_request import ClassOrder, DatasetRequest
from .domain import Domain

ImageT = TypeVar("ImageT")


def open_image_folder(request: DatasetRequest, manifest: Manifest, seed: int) -> tuple[str, list[Domain]]:
    """Open the images of a folder as one domain; the seed has no effect."""
    domain = load_image_folder(
        request.folder, manifest, request.name, request.class_order, request.make_reader()
    )
    return request.name, [domain]


def load_image_folder(
    folder: Path,
    manifest: Manifest,
    name: str | None = None,
    class_order: ClassOrder | None = None,
    reader: ImageReader | None = None,
) -> Domain:
    """Open images in one folder per class (`<class>/<image>`), prepared as the bundle says.

    The order of the stream depends on the name (default: the folder's). Names of folders are class
    identifiers of the bundle. If the bundle has none, there must be one folder per class, and their places
    in order are the indices. Programs that train models sort folders in different ways; where these differ,
    `class_order` must say which way it was.

    Raises:
        InputError: the folder is missing or empty, a class folder is empty or not a class of the model, or
            the order of the folders decides and none was given.
    """
    reader = reader or ImageReader()
    listing = list_class_folders(folder)
    labels = listing.label_images(index_classes(listing.classes, manifest, folder, class_order))
    return Domain(
        name or folder.resolve().name,
        listing.ids,
        labels,
        make_loader(listing, reader.prepare(manifest.preprocessing)),
        make_loader(listing, reader.read),
        missing_folders=listing.find_missing(list_official_classes(manifest)),
        reader=reader,
        left_out=listing.left_out,
    )


def make_loader(listing: ClassFolders, read: Callable[[str], ImageT]) -> Callable[[int], ImageT]:
    """Return `load` or `open_image` of a domain of class folders, given the function that reads one file."""
    folder, ids = str(listing.folder), listing.ids
    return lambda index: read(f"{folder}/{ids[index]}")
