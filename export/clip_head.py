"""First classes of a CLIP bundle: ImageNet's, or those of a list."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES

from ..data.class_names import read_names
from .classes import find_imagenet_classes

IMAGENET = "imagenet"


@dataclass(frozen=True)
class ClassList:
    """Classes before their texts are encoded.

    Attributes:
        label: name of the head.
        class_ids: identifiers, all different.
        class_names: names as they stand in the texts.
        origin: where they come from, for the record.
    """

    label: str
    class_ids: tuple[str, ...]
    class_names: tuple[str, ...]
    origin: str


def list_imagenet() -> ClassList:
    """Return ImageNet's classes in the order of their identifiers, with the names of CLIP's authors."""
    labels = find_imagenet_classes(len(IMAGENET_CLASSNAMES))
    assert labels is not None
    return ClassList(IMAGENET, labels[0], tuple(IMAGENET_CLASSNAMES), "ImageNet's, with open_clip's names")


def read_class_list(path: Path) -> ClassList:
    """Read classes from a text file, as `read_names` does; the head is called after the file.

    Raises:
        InputError: the file cannot be read or is empty, or it is unclear which class a line means.
    """
    identifiers, names = read_names(path)
    label = re.sub(r"[^a-z0-9]+", "-", path.stem.lower()).strip("-") or "classes"
    return ClassList(label, identifiers, names, path.name)
