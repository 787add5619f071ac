"""Data sets that a prompt is transferred to: their images, and the names of their classes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ...data.reading import Reading
from ...engine.bundle.bundle import Bundle
from ...engine.bundle.head import Head
from ...engine.bundle.manifest import Manifest
from ...engine.errors import InputError
from ..datasets.aircraft import VARIANTS
from ..datasets.class_folders import IMAGENET_CLASSES
from ..datasets.dataset_registry import open_dataset
from ..datasets.dataset_request import DatasetRequest
from ..datasets.domain import Domain
from ..datasets.imagenet import V2_VARIANTS
from ..datasets.open_split import open_split_data
from ..datasets.published_sets import PLAIN_TEMPLATE, PUBLISHED_SETS
from ..datasets.split_dataset import make_test_domain
from ..datasets.split_folders import find_training_folder
from ..tuning.few_shot_task import name_classes

IMAGENET_SETS = ("imagenet", "imagenet-a", "imagenet-v2", "imagenet-r", "imagenet-sketch")
SPLIT = "split"
_NAMED = re.compile(r"(?P<name>[\w-]+)=(?P<folder>.+)")
# Names of folders, in lower case, as archives and CoOp's instructions call them.
_FOLDERS = {
    **{name: name for name in IMAGENET_SETS},
    "sketch": "imagenet-sketch",
    "imagenetv2": "imagenet-v2",
    "imagenet-v2": "imagenet-v2",
    **dict.fromkeys(V2_VARIANTS.values(), "imagenet-v2"),
}


@dataclass(frozen=True)
class TransferTarget:
    """A data set with classes of its own.

    Attributes:
        name: of the data set.
        domains: its images, labelled from 0 to K − 1.
        class_ids: K different identifiers.
        class_names: K names as they stand in texts.
    """

    name: str
    domains: tuple[Domain, ...]
    class_ids: tuple[str, ...]
    class_names: tuple[str, ...]

    @property
    def template(self) -> str:
        """Text of a class that is published for the data set."""
        facts = PUBLISHED_SETS.get(self.name)
        return PLAIN_TEMPLATE if facts is None else facts.template


def open_target(text: str, bundle: Bundle, reading: Reading, names: Sequence[str] = ()) -> TransferTarget:
    """Open a data set.

    Args:
        text: `DIR`, or `NAME=DIR` with one of `IMAGENET_SETS`, `PUBLISHED_SETS` or `split`.
        bundle: its preprocessing, and a head that names ImageNet's classes.
        reading: how image files are read.
        names: heads to ask for the names of ImageNet's classes first.

    Raises:
        InputError: the data set is unknown, or not as it should be.
    """
    match = _NAMED.fullmatch(text)
    folder = Path(match["folder"] if match else text)
    kind = match["name"] if match else recognise_folder(folder)
    if kind in IMAGENET_SETS:
        return _open_imagenet(kind, folder, find_imagenet(bundle, names), reading)
    if kind != SPLIT and kind not in PUBLISHED_SETS:
        raise InputError(
            f"expected a data set out of {', '.join((*IMAGENET_SETS, SPLIT, *PUBLISHED_SETS))} in front of "
            f"=, found {kind!r}"
        )
    data, note = name_classes(open_split_data(folder, dataset=None if kind == SPLIT else kind), bundle)
    request = DatasetRequest(SPLIT, data=folder, reading=reading)
    labels = range(data.classes)
    domain = make_test_domain(data, labels, bundle.manifest.preprocessing, request.make_reader())
    domain = replace(domain, classes=None, notes=(*domain.notes, *([note] if note else [])))
    return TransferTarget(data.name, (domain,), data.class_ids, data.class_names)


def mark_source(target: TransferTarget, contexts: Sequence[Head]) -> TransferTarget:
    """Return the data set, marked if a context was learnt from it; then it is in no average.

    That is known of published data sets, and of ImageNet, whose classes the head of such a context has.
    """
    if target.name == IMAGENET_SETS[0]:
        is_source = any(_has_wnids(head.class_ids) for head in contexts)
    else:
        names = {head.record.get("tuning", {}).get("data") for head in contexts}
        is_source = target.name in PUBLISHED_SETS and target.name in names
    domains = (replace(domain, learnt_from=is_source) for domain in target.domains)
    return replace(target, domains=tuple(domains))


def recognise_folder(folder: Path) -> str:
    """Return the data set in a folder, by its files or by its name.

    Raises:
        InputError: neither says what it is.
    """
    if list(folder.glob("split_*.json")) or (folder / VARIANTS).is_file():
        return SPLIT
    for path in (folder, folder.resolve(), folder.resolve().parent):
        if path.name.lower() in _FOLDERS:
            return _FOLDERS[path.name.lower()]
    if find_training_folder(folder) is not None:
        return SPLIT
    raise InputError(
        f"cannot tell which data set {folder} is: expected a split file, FGVC Aircraft's text files, train/ "
        f"and test/, or a name like imagenet-a; say it with NAME={folder}, a NAME out of "
        f"{', '.join((*IMAGENET_SETS, SPLIT))} or a published one"
    )


def find_imagenet(bundle: Bundle, names: Sequence[str] = ()) -> Manifest:
    """Return the manifest with a head in use that names ImageNet's classes.

    Args:
        bundle: the bundle.
        names: heads to try first; the one in use and all others follow.

    Raises:
        InputError: no head has ImageNet's identifiers.
    """
    manifest = bundle.manifest
    heads = [manifest.heads[name] for name in names] + [manifest.heads.get(manifest.head_name or "")]
    for head in (*heads, *manifest.heads.values()):
        if head is not None and _has_wnids(head.class_ids):
            return manifest.use_head(head)
    raise InputError(
        f"{bundle.path} has no head with names for ImageNet's {IMAGENET_CLASSES:,} classes; make one with: "
        "fozo classes BUNDLE NAMES.txt --as imagenet, in lines like: n01440764 tench"
    )


def _has_wnids(identifiers: Sequence[str]) -> bool:
    return len(identifiers) == IMAGENET_CLASSES and all(
        len(identifier) == 9 and identifier[0] == "n" and identifier[1:].isdecimal()
        for identifier in identifiers
    )


def _open_imagenet(kind: str, folder: Path, manifest: Manifest, reading: Reading) -> TransferTarget:
    """Open ImageNet or one of its relatives; classes are those that have a folder, or all."""
    _, domains = open_dataset(DatasetRequest(kind, data=folder, reading=reading), manifest)
    classes = domains[0].classes or tuple(range(manifest.classes))
    positions = np.full(manifest.classes, -1, np.int64)
    positions[list(classes)] = np.arange(len(classes))
    return TransferTarget(
        kind,
        tuple(_number_domain(domain, kind, positions, len(domains) > 1) for domain in domains),
        tuple((manifest.class_ids or ())[label] for label in classes),
        tuple((manifest.class_names or ())[label] for label in classes),
    )


def _number_domain(domain: Domain, kind: str, positions: np.ndarray, has_others: bool) -> Domain:
    """Return a domain whose labels count its own classes."""
    name = f"{kind} {domain.name}" if has_others else kind
    return replace(domain, name=name, labels=positions[domain.labels])
