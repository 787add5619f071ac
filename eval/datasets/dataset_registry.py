"""The data sets. To add one, write its loader in this folder and its line in `DATASETS`.

This module imports no data set before it is opened, so that `--help` can list them at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from ...engine.errors import InputError
from .dataset_request import DatasetRequest, format_options

if TYPE_CHECKING:
    from ...engine.bundle.manifest import Manifest
    from .domain import Domain

    Opener = Callable[[DatasetRequest, Manifest, int], tuple[str, list[Domain]]]


@dataclass(frozen=True)
class Dataset:
    """A data set that can be requested by name.

    Attributes:
        module: name of its file in this folder.
        opener: name of its function, which takes a request, the manifest of the bundle and the seed of
            generated corruptions, and returns the data set's name in tables and its domains in the order of
            the stream.
        options: optional fields of `DatasetRequest` that it takes; others are refused.
        generates: its corruptions are always computed, and `clean` is one of their names.
    """

    module: str
    opener: str
    options: tuple[str, ...] = ("data",)
    generates: bool = False


_NAMES = ("class_ids", "class_order")
_IMAGENET_C = ("data", "clean", "labels", "generate_from", "frost_textures", "corruptions", *_NAMES)
DATASETS = {
    "imagenet-c": Dataset("imagenet_c", "open_imagenet_c", _IMAGENET_C),
    "imagenet": Dataset("imagenet", "open_imagenet", ("data", "labels", *_NAMES)),
    "imagenet-r": Dataset("imagenet", "open_relative", ("data", "class_ids")),
    "imagenet-a": Dataset("imagenet", "open_relative", ("data", "class_ids")),
    "imagenet-v2": Dataset("imagenet", "open_imagenet_v2", ("data", "class_ids")),
    "imagenet-sketch": Dataset("imagenet", "open_relative", ("data", "class_ids")),
    "cifar10-c": Dataset("cifar", "open_cifar10_c", ("data", "corruptions")),
    "cifar100-c": Dataset("cifar", "open_cifar100_c", ("data", "corruptions")),
    "imagefolder": Dataset("image_folder", "open_image_folder", ("data", *_NAMES)),
    "split": Dataset("split_dataset", "open_split_dataset", ("data", "split")),
    "demo": Dataset("digits", "open_digits", ("frost_textures", "corruptions"), generates=True),
}


def open_dataset(request: DatasetRequest, manifest: Manifest, seed: int = 0) -> tuple[str, list[Domain]]:
    """Return the data set's name for the protocol, and its domains in the order of the stream.

    Args:
        request: the data set and its location.
        manifest: manifest of the bundle: its classes and preprocessing.
        seed: seed of generated corruptions.

    Raises:
        InputError: options that do not go together, or data that is not as it should be.
    """
    from .class_order import name_classes
    from .corruption_names import check_severities

    dataset = find_dataset(request.name)
    if useless := [name for name in request.options if name not in dataset.options]:
        raise InputError(
            f"{format_options(useless)} would have no effect with --dataset {request.name}, which takes "
            f"{format_options(dataset.options)}; leave it out"
        )
    check_severities(request.severities)
    return load_opener(dataset)(request, name_classes(request, manifest), seed)


def find_dataset(name: str) -> Dataset:
    """Return the data set with a name.

    Raises:
        InputError: there is none.
    """
    if name not in DATASETS:
        raise InputError(
            f"expected a data set out of {', '.join(DATASETS)}, found {name!r}; pick one of these"
        )
    return DATASETS[name]


def load_opener(dataset: Dataset) -> Opener:
    """Import the function that opens a data set."""
    opener: Opener = getattr(import_module(f".{dataset.module}", __package__), dataset.opener)
    return opener


def generates_corruptions(request: DatasetRequest) -> bool:
    """Return whether corruptions are computed while streaming."""
    return find_dataset(request.name).generates or request.generate_from is not None
