"""ImageNet's validation images, and the sets that test its classes: -R, -A, -Sketch and -V2."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ...engine.bundle.manifest import Manifest
from ...engine.errors import InputError
from .class_folders import IMAGENET_CLASSES as CLASSES
from .class_folders import list_class_folders, list_entries
from .class_order import index_classes
from .dataset_request import ClassOrder, DatasetRequest
from .domain import Domain
from .image_folder import load_image_folder, make_file_reader, make_loader
from .imagenet_subsets import IMAGENET_A, IMAGENET_R
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
    return request.name, [load_relative(request.name, request.folder, manifest)]


def open_imagenet_v2(request: DatasetRequest, manifest: Manifest, seed: int) -> tuple[str, list[Domain]]:
    """Open the variants of ImageNet-V2 in a folder; the seed has no effect."""
    return request.name, load_imagenet_v2(request.folder, manifest)


def open_imagenet(request: DatasetRequest, manifest: Manifest, seed: int) -> tuple[str, list[Domain]]:
    """Open ImageNet's validation images; the seed has no effect."""
    return request.name, [load_imagenet(request.folder, manifest, request.labels, request.class_order)]


def load_relative(name: str, folder: Path, manifest: Manifest) -> Domain:
    """Open one of `RELATIVES`; its classes are those that have a folder.

    Raises:
        InputError: the folder is not as the archive unpacks.
    """
    facts = RELATIVES[name]
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
        make_loader(listing, make_file_reader(manifest)),
        classes=classes if count < manifest.classes else None,
        official_images=facts.images,
        official_class_count=count if count < manifest.classes else None,
        missing_folders=listing.find_missing(_list_official_wnids(facts, manifest)),
    )


def _list_official_wnids(facts: Relative, manifest: Manifest) -> Sequence[str]:
    """Return the class folders of a data set, if the bundle has ImageNet's classes or the data set's."""
    wnids = sorted(manifest.class_ids or ())
    if len(wnids) == CLASSES:
        return [wnids[number] for number in facts.classes]
    return wnids if len(wnids) == len(facts.classes) else []


def load_imagenet_v2(folder: Path, manifest: Manifest) -> list[Domain]:
    """Open one variant of ImageNet-V2, or all variants in a folder.

    Raises:
        InputError: there is no variant, a class folder is not a number from 0 to 999, or the bundle is not
            one of ImageNet's 1,000 classes.
    """
    index = _index_by_number(manifest)
    variants = {name: folder / inside for name, inside in V2_VARIANTS.items() if (folder / inside).is_dir()}
    if not variants:
        names = {inside: name for name, inside in V2_VARIANTS.items()}
        variants = {names.get(folder.resolve().name, "imagenet-v2"): folder}
    return [_load_variant(name, path, index, manifest) for name, path in variants.items()]


def load_validation(
    folder: Path, manifest: Manifest, labels: Path | None = None, class_order: ClassOrder | None = None
) -> Domain:
    """Open clean images by class folder or, with a file of labels, in one folder as the archive unpacks.

    The identifiers are in both cases `<wnid>/<file>`, so that subsets and generated corruptions are the same.

    Raises:
        InputError: the folder is not as expected, or an image has no label.
    """
    if labels is None:
        return load_image_folder(folder, manifest, class_order=class_order)
    files = _list_flat_images(folder)
    file_labels = read_labels(labels)
    if missing := [name for name in files if get_stem(name) not in file_labels]:
        raise InputError(
            f"{len(missing):,} of the {len(files):,} images in {folder} have no label in {labels}: "
            f"{', '.join(missing[:3])}{', …' if len(missing) > 3 else ''}"
        )
    labels_by_name = {name: file_labels[get_stem(name)] for name in files}
    names = sorted(set(labels_by_name.values()))
    index = (
        _index_by_number(manifest)
        if names[0].isdecimal()
        else index_classes(names, manifest, labels, class_order)
    )
    return _load_flat(folder, {name: index[label] for name, label in labels_by_name.items()}, manifest)


def load_imagenet(
    folder: Path, manifest: Manifest, labels: Path | None = None, class_order: ClassOrder | None = None
) -> Domain:
    """Open ImageNet's 50,000 validation images, as `load_validation` does.

    Raises:
        InputError: the folder is not as expected, or an image has no label.
    """
    try:
        domain = load_validation(folder, manifest, labels, class_order)
    except InputError as error:
        if labels is not None:
            raise
        raise InputError(
            f"{error}. If all images lie side by side, as ILSVRC2012_img_val.tar unpacks, give their classes "
            f"with --labels FILE, in lines like {FORMS}"
        ) from error
    return replace(domain, name="imagenet", official_images=VALIDATION_IMAGES)


def _load_variant(name: str, folder: Path, index: dict[str, int], manifest: Manifest) -> Domain:
    advice = (
        f"{V2_ARCHIVES} unpack to folders like {V2_VARIANTS['matched-frequency']}/<0 to 999>/<image>; "
        "--data names one of them, or the folder that holds them"
    )
    try:
        listing = list_class_folders(folder)
    except InputError as error:
        raise InputError(f"{error}. {advice}") from error
    if unknown := [number for number in listing.classes if number not in index]:
        raise InputError(
            f"expected folders from 0 to {CLASSES - 1}, found {', '.join(unknown[:5])} in {folder}. {advice}"
        )
    labels = listing.label_images(index)
    return Domain(
        name,
        listing.ids,
        labels,
        make_loader(listing, make_file_reader(manifest)),
        official_images=V2_IMAGES,
        missing_folders=listing.find_missing(index),
    )


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


def _list_flat_images(folder: Path) -> list[str]:
    deeper, files = list_entries(folder)
    if deeper or not files:
        content = f"the folder {deeper[0]}" if deeper else "no image"
        raise InputError(
            f"labels are for images that lie side by side in one folder, found {content} in {folder}; leave "
            "--labels out if there is one folder per class"
        )
    return files


def _load_flat(folder: Path, labels: dict[str, int], manifest: Manifest) -> Domain:
    wnids, directory = manifest.class_ids, str(folder)
    ids = {f"{wnids[label]}/{name}" if wnids else name: label for name, label in labels.items()}
    ordered = tuple(sorted(ids))
    read = make_file_reader(manifest)
    return Domain(
        folder.resolve().name,
        ordered,
        np.array([ids[identifier] for identifier in ordered], np.int64),
        lambda index: read(f"{directory}/{ordered[index].rpartition('/')[2]}"),
    )
