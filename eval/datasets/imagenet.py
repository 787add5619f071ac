"""ImageNet's validation images, and the sets that test its classes: -R, -A, -Sketch and -V2."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ...data.image_reader import ImageReader
from ...engine.bundle.manifest import Manifest
from ...engine.errors import InputError
from .class_folders import IMAGENET_CLASSES as CLASSES
from .class_folders import FolderEntries, list_class_folders, list_entries
from .class_order import index_classes
from .dataset_request import ClassOrder, DatasetRequest
from .domain import Domain
from .image_folder import load_image_folder, make_loader
from .imagenet_subsets import IMAGENET_A, IMAGENET_R
from .nearby_folders import suggest_folder
from .validation_labels import FORMS, get_stem, read_labels

VALIDATION_IMAGES = 50_000
V2_IMAGES = 10_000
# Name of each variant in tables, and the folder that its archive unpacks to.
V2_VARIANTS = {
    "matched-frequency": "imagenetv2-matched-frequency-format-val",
    "threshold0.7": "imagenetv2-threshold0.7-format-val",
    "top-images": "imagenetv2-top-images-format-val",
}
V2_ARCHIVES = "imagenetv2-matched-frequency.tar.gz, -threshold0.7.tar.gz and -top-images.tar.gz"
_WNID = re.compile(r"n\d{8}")
# Names with the class at their end, as ILSVRC2012_val_00000001_n01751748.JPEG.
_NAME_WITH_WNID = re.compile(r"(?P<image>.+)_(?P<wnid>n\d{8})(?P<suffix>\.\w+)")


@dataclass(frozen=True)
class Relative:
    """A data set in folders by WNID.

    Attributes:
        images: official number of images.
        classes: numbers of its classes; if they are fewer than ImageNet's, others are not predicted.
        origin: the archive, and the folder that it unpacks to.
    """

    images: int
    classes: tuple[int, ...]
    origin: str


RELATIVES = {
    "imagenet-r": Relative(30_000, IMAGENET_R, "imagenet-r.tar unpacks to imagenet-r"),
    "imagenet-a": Relative(7_500, IMAGENET_A, "imagenet-a.tar unpacks to imagenet-a"),
    "imagenet-sketch": Relative(50_889, tuple(range(CLASSES)), "ImageNet-Sketch.zip unpacks to sketch"),
}


def open_relative(request: DatasetRequest, manifest: Manifest, seed: int) -> tuple[str, list[Domain]]:
    """Open one of `RELATIVES`; the seed has no effect."""
    return request.name, [load_relative(request.name, request.folder, manifest, request.make_reader())]


def open_imagenet_v2(request: DatasetRequest, manifest: Manifest, seed: int) -> tuple[str, list[Domain]]:
    """Open the variants of ImageNet-V2 in a folder; the seed has no effect."""
    return request.name, load_imagenet_v2(request.folder, manifest, request.make_reader())


def open_imagenet(request: DatasetRequest, manifest: Manifest, seed: int) -> tuple[str, list[Domain]]:
    """Open ImageNet's validation images; the seed has no effect."""
    domain = load_imagenet(
        request.folder, manifest, request.labels, request.class_order, request.make_reader()
    )
    return request.name, [domain]


def load_relative(name: str, folder: Path, manifest: Manifest, reader: ImageReader | None = None) -> Domain:
    """Open one of `RELATIVES`; its classes are those that have a folder.

    Raises:
        InputError: the folder is not as the archive unpacks.
    """
    facts, reader = RELATIVES[name], reader or ImageReader()
    count = len(facts.classes)
    advice = f"{facts.origin}/<wnid>/<image>, and --data names that folder"
    try:
        listing = list_class_folders(folder)
        index = index_classes(listing.classes, manifest, folder)
    except InputError as error:
        raise InputError(f"{error}. {advice}") from error
    if len(listing.classes) > count:
        raise InputError(
            f"expected the {count} classes of {name}, found {len(listing.classes)} in {folder}. {advice}"
        )
    classes = tuple(sorted(index[wnid] for wnid in listing.classes))
    return Domain(
        name,
        listing.ids,
        listing.label_images(index),
        make_loader(listing, reader.prepare(manifest.preprocessing)),
        make_loader(listing, reader.read),
        classes=classes if count < manifest.classes else None,
        official_images=facts.images,
        official_class_count=count if count < manifest.classes else None,
        missing_folders=listing.find_missing(_list_official_wnids(facts, manifest)),
        reader=reader,
        left_out=listing.left_out,
    )


def _list_official_wnids(facts: Relative, manifest: Manifest) -> Sequence[str]:
    """Return the class folders of a data set, if the bundle has ImageNet's classes or the data set's."""
    wnids = sorted(manifest.class_ids or ())
    if len(wnids) == CLASSES:
        return [wnids[number] for number in facts.classes]
    return wnids if len(wnids) == len(facts.classes) else []


def load_imagenet_v2(folder: Path, manifest: Manifest, reader: ImageReader | None = None) -> list[Domain]:
    """Open one variant of ImageNet-V2, or all variants in a folder.

    Class folders are numbers from 0 to 999, as published, or all are named by WNID.

    Raises:
        InputError: there is no variant, a class folder is neither, or the bundle is not one of ImageNet's
            1,000 classes.
    """
    index, reader = _index_by_number(manifest), reader or ImageReader()
    variants = {name: folder / inside for name, inside in V2_VARIANTS.items() if (folder / inside).is_dir()}
    if not variants:
        names = {inside: name for name, inside in V2_VARIANTS.items()}
        variants = {names.get(folder.resolve().name, "imagenet-v2"): folder}
    return [_load_variant(name, path, index, manifest, reader) for name, path in variants.items()]


def load_validation(
    folder: Path,
    manifest: Manifest,
    labels: Path | None = None,
    class_order: ClassOrder | None = None,
    reader: ImageReader | None = None,
) -> Domain:
    """Open clean images by class folder or, with a file of labels, in one folder as the archive unpacks.

    Without such a file, images in one folder may also have their WNID at the end of their names. The
    identifiers are in all cases `<wnid>/<file>`, so that subsets and generated corruptions are the same.

    Raises:
        InputError: the folder is not as expected, or an image has no label.
    """
    reader = reader or ImageReader()
    if labels is None and not _have_wnids(list_entries(folder)):
        return load_image_folder(folder, manifest, class_order=class_order, reader=reader)
    entries = _list_flat_images(folder)
    pairs = _split_names(entries.images) if labels is None else _read_pairs(entries.images, folder, labels)
    names = sorted({label for _, label in pairs.values()})
    index = (
        _index_by_number(manifest)
        if names[0].isdecimal()
        else index_classes(names, manifest, labels or folder, class_order)
    )
    return replace(_load_flat(folder, pairs, index, manifest, reader), left_out=entries.left_out)


def load_imagenet(
    folder: Path,
    manifest: Manifest,
    labels: Path | None = None,
    class_order: ClassOrder | None = None,
    reader: ImageReader | None = None,
) -> Domain:
    """Open ImageNet's 50,000 validation images, as `load_validation` does.

    Raises:
        InputError: the folder is not as expected, or an image has no label.
    """
    try:
        domain = load_validation(folder, manifest, labels, class_order, reader)
    except InputError as error:
        if labels is not None:
            raise
        raise InputError(
            f"{error}. If all images lie side by side, as ILSVRC2012_img_val.tar unpacks, give their classes "
            f"with --labels FILE, in lines like {FORMS}"
        ) from error
    return replace(domain, name="imagenet", official_images=VALIDATION_IMAGES)


def _load_variant(
    name: str, folder: Path, numbers: dict[str, int], manifest: Manifest, reader: ImageReader
) -> Domain:
    advice = (
        f"{V2_ARCHIVES} unpack to folders like {V2_VARIANTS['matched-frequency']}/<0 to 999>/<image>; "
        f"--data names one of them, or the folder that holds them{_suggest_variant(folder)}"
    )
    try:
        listing = list_class_folders(folder)
        by_wnid = all(map(_WNID.fullmatch, listing.classes))
        index = index_classes(listing.classes, manifest, folder) if by_wnid else numbers
    except InputError as error:
        raise InputError(f"{error}. {advice}") from error
    if unknown := [number for number in listing.classes if number not in index]:
        raise InputError(
            f"expected folders from 0 to {CLASSES - 1}, or named by WNID, found {', '.join(unknown[:5])} in "
            f"{folder}. {advice}"
        )
    labels = listing.label_images(index)
    return Domain(
        name,
        listing.ids,
        labels,
        make_loader(listing, reader.prepare(manifest.preprocessing)),
        make_loader(listing, reader.read),
        official_images=V2_IMAGES,
        missing_folders=listing.find_missing(index),
        reader=reader,
        left_out=listing.left_out,
    )


def _suggest_variant(folder: Path) -> str:
    return next(filter(None, (suggest_folder(folder, inside) for inside in V2_VARIANTS.values())), "")


def _index_by_number(manifest: Manifest) -> dict[str, int]:
    """Return the bundle's index of each class by its number among ImageNet's sorted WNIDs, as text."""
    wnids = manifest.class_ids
    if manifest.classes != CLASSES or (wnids is not None and not all(map(_WNID.fullmatch, wnids))):
        raise InputError(
            f"classes by number are those of ImageNet's {CLASSES:,} WNIDs in order, and {manifest.model} has "
            f"{manifest.classes} classes{f' named like {wnids[0]}' if wnids else ''}; use a bundle of a "
            "model that was trained on ImageNet"
        )
    order = sorted(range(CLASSES), key=wnids.__getitem__) if wnids is not None else range(CLASSES)
    return {str(number): label for number, label in enumerate(order)}


def _have_wnids(entries: FolderEntries) -> bool:
    """Return whether a folder holds images alone, and the names of all of them end in a WNID."""
    names = entries.images
    return bool(names) and not entries.folders and all(map(_NAME_WITH_WNID.fullmatch, names))


def _split_names(files: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return for each file its name without the WNID, and the WNID."""
    matches = {file: _NAME_WITH_WNID.fullmatch(file) for file in files}
    return {
        file: (f"{match['image']}{match['suffix']}", match["wnid"])
        for file, match in matches.items()
        if match is not None
    }


def _read_pairs(files: Sequence[str], folder: Path, labels: Path) -> dict[str, tuple[str, str]]:
    """Return for each file its name, and its label in a file of labels."""
    file_labels = read_labels(labels)
    if missing := [name for name in files if get_stem(name) not in file_labels]:
        raise InputError(
            f"{len(missing):,} of the {len(files):,} images in {folder} have no label in {labels}: "
            f"{', '.join(missing[:3])}{', …' if len(missing) > 3 else ''}"
        )
    return {name: (name, file_labels[get_stem(name)]) for name in files}


def _list_flat_images(folder: Path) -> FolderEntries:
    entries = list_entries(folder)
    if entries.folders or not entries.images:
        content = f"the folder {entries.folders[0]}" if entries.folders else "no image"
        raise InputError(
            f"labels are for images that lie side by side in one folder, found {content} in {folder}; leave "
            "--labels out if there is one folder per class"
        )
    return entries


def _load_flat(
    folder: Path,
    pairs: dict[str, tuple[str, str]],
    index: dict[str, int],
    manifest: Manifest,
    reader: ImageReader,
) -> Domain:
    """Open images in one folder, given the name in the identifier and the label of each file."""
    wnids, directory = manifest.class_ids, str(folder)
    rows = sorted(
        (f"{wnids[index[label]]}/{image}" if wnids else image, file, index[label])
        for file, (image, label) in pairs.items()
    )
    files, read = [file for _, file, _ in rows], reader.prepare(manifest.preprocessing)
    return Domain(
        folder.resolve().name,
        tuple(identifier for identifier, _, _ in rows),
        np.array([label for _, _, label in rows], np.int64),
        lambda position: read(f"{directory}/{files[position]}"),
        lambda position: reader.read(f"{directory}/{files[position]}"),
        reader=reader,
    )
