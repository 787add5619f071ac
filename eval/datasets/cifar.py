"""CIFAR-10-C and CIFAR-100-C: one memory-mapped array per corruption."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...data.images import preprocess
from ...engine.bundle.manifest import Manifest
from ...engine.errors import InputError, reason
from ..corruptions.corruption_registry import SEVERITIES
from .corruption_names import EXTRA, IMAGENET_C, check_names, check_severities
from .dataset_request import DatasetRequest
from .domain import Domain, Pixels, make_array_domain, number_ids
from .nearby_folders import suggest_folder

IMAGES = 10_000
LABELS = "labels.npy"
CIFAR10_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)


def open_cifar10_c(request: DatasetRequest, manifest: Manifest, seed: int) -> tuple[str, list[Domain]]:
    """Open CIFAR-10-C; the seed has no effect."""
    return request.name, load_cifar_c(10, request.folder, manifest, request.severities, request.corruptions)


def open_cifar100_c(request: DatasetRequest, manifest: Manifest, seed: int) -> tuple[str, list[Domain]]:
    """Open CIFAR-100-C; the seed has no effect."""
    return request.name, load_cifar_c(100, request.folder, manifest, request.severities, request.corruptions)


def load_cifar_c(
    classes: int,
    folder: Path,
    manifest: Manifest,
    severities: Sequence[int],
    corruptions: Sequence[str] | None = None,
) -> list[Domain]:
    """Open every corruption at each severity in turn; images are prepared as the bundle says.

    Args:
        classes: 10 or 100.
        folder: with `<corruption>.npy`, uint8 `[5 N, 32, 32, 3]`, N images at severity 1, then at 2, and so
            on, or `[N, 32, 32, 3]` at the one severity of `severities`; and `labels.npy`, integers `[5 N]`
            that repeat five times, or `[N]`. Officially N is 10,000, and there are five severities.
        manifest: of the bundle; its classes must be CIFAR's, in CIFAR's order.
        severities: 1 to 5.
        corruptions: names out of `IMAGENET_C` and `EXTRA`; None is `IMAGENET_C`.

    Raises:
        InputError: a corruption or severity does not exist, a file is missing or not as it should be, or the
            bundle has other classes.
    """
    name = f"CIFAR-{classes}-C"
    names = IMAGENET_C if corruptions is None else corruptions
    check_names(names, (*IMAGENET_C, *EXTRA), name)
    check_severities(severities)
    _check_classes(classes, manifest)
    files = [f"{corruption}.npy" for corruption in names]
    if missing := [file for file in (*files, LABELS) if not (folder / file).is_file()]:
        raise InputError(
            f"expected {folder}/<corruption>.npy and {LABELS}, as {name}.tar unpacks; missing: "
            f"{', '.join(missing)}. Name that folder with --data, or choose what you have with --corruptions"
            f"{suggest_folder(folder, LABELS)}"
        )
    labels = find_labels_of_severity(_read_labels(folder / LABELS, classes), folder / LABELS)
    stacks = {
        corruption: _read_images(folder / file, len(labels), severities)
        for corruption, file in zip(names, files, strict=True)
    }
    ids = number_ids(len(labels))
    return [
        _make_domain(corruption, severity, stacks[corruption], labels, ids, manifest)
        for severity in severities
        for corruption in names
    ]


def find_labels_of_severity(labels: NDArray[np.int64], path: Path) -> NDArray[np.int64]:
    """Return the labels of the images at one severity.

    The official file repeats them for each of the five. Labels that do not repeat are those of one severity.

    Args:
        labels: `[5 N]` or `[N]`.
        path: the file, for messages.

    Raises:
        InputError: the labels repeat more than five times, so that they could be either.
    """
    count = len(labels) // len(SEVERITIES)
    if len(labels) % len(SEVERITIES) or not _repeats(labels, count):
        return labels
    shorter = (length for length in range(1, count // 2 + 1) if count % length == 0)
    if count != IMAGES and any(_repeats(labels, length) for length in shorter):
        raise InputError(
            f"expected labels of one severity in {path}, or the same labels five times, found "
            f"{len(labels):,} labels that fit both, as they repeat more than five times; bring images "
            "and labels into another order, the same for each severity"
        )
    return labels[:count]


def _repeats(labels: NDArray[np.int64], length: int) -> bool:
    """Return whether labels are the first `length` of them, over and over."""
    return bool((labels.reshape(-1, length) == labels[:length]).all())


def _make_domain(
    name: str,
    severity: int,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    ids: tuple[str, ...],
    manifest: Manifest,
) -> Domain:
    """Open one severity; an array as long as the labels has only that one."""
    alone = len(images) == len(labels)
    first = 0 if alone else (severity - 1) * len(labels)
    domain = make_array_domain(name, images[first : first + len(labels)], labels, ids)
    load = partial(_prepare_image, domain.load, manifest)
    open_image = partial(_open_image, domain.load)
    note = f"arrays of one severity were taken as severity {severity}, as --severities says"
    return replace(
        domain,
        load=load,
        open_image=open_image,
        severity=severity,
        official_images=IMAGES,
        notes=(note,) if alone else (),
    )


def _open_image(load: Any, index: int) -> Image.Image:
    return Image.fromarray(load(index))


def _prepare_image(load: Any, manifest: Manifest, index: int) -> Pixels:
    return preprocess(Image.fromarray(load(index)), manifest.preprocessing)


def _check_classes(classes: int, manifest: Manifest) -> None:
    ids = manifest.class_ids
    if classes == len(CIFAR10_CLASSES):
        fits, order = ids in (None, CIFAR10_CLASSES), f"in the order {', '.join(CIFAR10_CLASSES)}"
    else:
        fits, order = ids is None or list(ids) == sorted(ids), "in alphabetical order"
    if manifest.classes != classes or not fits:
        description = f", named {', '.join(ids[:3])}, …" if ids else ""
        raise InputError(
            f"CIFAR-{classes}-C needs a model of its {classes} classes, {order}; {manifest.model} has "
            f"{manifest.classes}{description}. "
            f"Export one that was trained on CIFAR-{classes}, with --classes FILE"
        )


def _read_labels(path: Path, classes: int) -> NDArray[np.int64]:
    labels = _read_array(path)
    well_formed = labels.ndim == 1 and labels.dtype.kind in "iu" and len(labels)
    if not well_formed or labels.min() < 0 or labels.max() >= classes:
        raise InputError(
            f"expected whole numbers from 0 to {classes - 1} in {path}, found {labels.dtype} of shape "
            f"{list(labels.shape)}"
            f"{f' from {labels.min()} to {labels.max()}' if well_formed else ''}; unpack the archive again"
        )
    return labels.astype(np.int64)


def _read_images(path: Path, count: int, severities: Sequence[int]) -> NDArray[np.uint8]:
    """Read the images of all five severities, or of one, with `count` labels for each severity."""
    images = _read_array(path)
    lengths = (len(SEVERITIES) * count, count)
    if images.dtype != np.uint8 or images.shape[1:] != (32, 32, 3) or len(images) not in lengths:
        raise InputError(
            f"expected uint8 of shape [{lengths[0]}, 32, 32, 3], or [{count}, 32, 32, 3] for one severity, "
            f"as {LABELS} has {count} labels for each severity, in {path}, found {images.dtype} of shape "
            f"{list(images.shape)}; unpack the archive again"
        )
    if len(images) == count and len(severities) > 1:
        raise InputError(
            f"{path} has {count} images, as many as one severity; say which one with --severities, such as "
            f"--severities {severities[0]}"
        )
    return images


def _read_array(path: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # NumPy raises a dozen kinds on damaged headers
        raise InputError(
            f"expected a NumPy array in {path}, found something else or a part of one ({reason(error)}); "
            "unpack the archive again"
        ) from error
    return array
