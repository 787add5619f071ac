"""Numbers of class folders: by the bundle's names, or in the order of a program that trains models."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...data.class_names import read_class_names
from ...engine.bundle.manifest import Manifest
from ...engine.errors import InputError
from ...engine.files import hash_file
from .dataset_request import ClassOrder, DatasetRequest

_ASK = (
    "say which one the model was trained with, --class-order timm or --class-order torchvision, or list the "
    "folders in the order of the model's outputs with --class-ids FILE"
)
_NUMBER = re.compile(r"(\d+)")
_SHORT_HASH = 8


def name_classes(request: DatasetRequest, manifest: Manifest) -> Manifest:
    """Return the manifest with the class identifiers of `request.class_ids`, if there are any.

    Raises:
        InputError: the list is not one of this bundle's classes, or an order of folders is asked for although
            the classes have names.
    """
    if request.class_ids is not None:
        identifiers, names = read_class_names(request.class_ids, manifest.classes)
        manifest = replace(manifest, class_ids=identifiers, class_names=names)
    if request.class_order is not None and manifest.class_ids is not None:
        source = "--class-ids" if request.class_ids is not None else "the bundle"
        raise InputError(
            f"--class-order {request.class_order} is for bundles that do not name their classes, and "
            f"{source} does ({', '.join(manifest.class_ids[:3])}, …); leave --class-order out"
        )
    return manifest


def describe_order(request: DatasetRequest) -> str | None:
    """Return the order that was asked for, with the hash of a list; None if nothing was."""
    if request.class_ids is None:
        return request.class_order
    return f"list {hash_file(request.class_ids)[:_SHORT_HASH]}"


def index_classes(
    folders: Sequence[str], manifest: Manifest, folder: Path, order: ClassOrder | None = None
) -> dict[str, int]:
    """Return the index of each class folder: by the bundle's identifiers, or else by position.

    Args:
        folders: names of the class folders.
        manifest: of the bundle.
        folder: where the class folders are, for messages.
        order: the order to number them in if the bundle has no identifiers; None where all orders agree.

    Raises:
        InputError: a folder is no class of the bundle, there are more or fewer folders than classes, or the
            order decides and none was given.
    """
    if manifest.class_ids is None:
        if len(folders) != manifest.classes:
            raise InputError(
                f"the bundle does not know its classes' names, so {folder} must have one folder for each "
                f"of its {manifest.classes} classes, found {len(folders)}; list the folders in the order of "
                "the model's outputs with --class-ids FILE, or export the model with --classes FILE"
            )
        return {name: index for index, name in enumerate(sort_folders(folders, folder, order))}
    index = {name: index for index, name in enumerate(manifest.class_ids)}
    unknown = [name for name in folders if name not in index]
    if unknown:
        many = "a name that is" if len(unknown) == 1 else f"{len(unknown)} names that are"
        raise InputError(
            f"{folder} has {many} no class of {manifest.model}: {', '.join(unknown[:5])}"
            f"{', …' if len(unknown) > 5 else ''}; its classes are named like "
            f"{', '.join(manifest.class_ids[:2])}. Rename or move what is named so, or list the names in the "
            "order of the model's outputs with --class-ids FILE"
        )
    return index


def sort_folders(folders: Sequence[str], folder: Path, order: ClassOrder | None = None) -> list[str]:
    """Return class folders in the order in which a program numbers them.

    torchvision, Keras and Hugging Face's datasets sort names as plain texts; timm sorts numbers in them by
    value, and ignores case.

    Raises:
        InputError: no order is given and they differ, or timm's is asked for and two names are equal to it.
    """
    orders = {name: sorted(folders, key=key) for name, key in _KEYS.items()}
    repeated = len(folders) - len({str(_read_natural_key(name)) for name in folders})
    if order == "timm" and repeated:
        raise InputError(
            f"some class folders of {folder} have equal places in timm's order, which ignores case and "
            "leading zeros; list the folders in the order of the model's outputs with --class-ids FILE"
        )
    if order is not None:
        return orders[order]
    first, second = orders.values()
    if first == second and not repeated:
        return first
    raise InputError(
        f"the bundle does not know its classes' names, and programs number the folders of {folder} in "
        f"different orders: {_show_difference(orders)}; {_ASK}"
    )


def _read_natural_key(name: str) -> list[str | int]:
    """Return texts and numbers in turn, as timm compares the names of class folders."""
    texts = _NUMBER.split(name.lower())
    return [int(text) if index % 2 else text for index, text in enumerate(texts)]


_KEYS: dict[ClassOrder, Callable[[str], Any]] = {"timm": _read_natural_key, "torchvision": str}


def _show_difference(orders: dict[ClassOrder, list[str]]) -> str:
    """Return the orders around the first place where they differ."""
    first, second = orders.values()
    place = next((i for i, names in enumerate(zip(first, second, strict=True)) if names[0] != names[1]), 0)
    start, end = max(0, place - 2), place + 2
    before, after = "…, " if start else "", ", …" if end < len(first) else ""
    return "; ".join(
        f"{program} {before}{', '.join(names[start:end])}{after}" for program, names in orders.items()
    )
