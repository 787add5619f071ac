"""FGVC Aircraft: images in one folder, and text files that name the variant of each."""

from __future__ import annotations

from pathlib import Path

from ...data.text_lists import read_entries
from ...engine.errors import InputError
from .split_data import LabelledImage, SplitData

VARIANTS = "variants.txt"
_LISTS = {"train": "images_variant_train.txt", "validation": "images_variant_val.txt"}
_TEST_LIST = "images_variant_test.txt"


def read_aircraft(folder: Path) -> SplitData:
    """Read the text files of FGVC Aircraft as its archive has them in `data/`.

    Classes are numbered in the order of `variants.txt`. A line of the other files is the name of an image
    without its suffix, and its variant.

    Raises:
        InputError: a file is missing, or names a variant that `variants.txt` does not have.
    """
    names = tuple(name for _, name in read_entries(folder / VARIANTS, "list of variants"))
    if not names or len(set(names)) != len(names):
        raise InputError(f"expected different variants, one per line, in {folder / VARIANTS}")
    labels = {name: label for label, name in enumerate(names)}
    sections = {section: _read_list(folder / file, labels) for section, file in _LISTS.items()}
    data = SplitData(
        name="fgvc_aircraft",
        folder=folder / "images",
        class_ids=names,
        class_names=names,
        train=sections["train"],
        validation=sections["validation"],
        test=_read_list(folder / _TEST_LIST, labels),
        published="fgvc_aircraft",
        origin=f"{_LISTS['train']} and {_TEST_LIST}",
    )
    data.check_training_classes()
    return data


def _read_list(path: Path, labels: dict[str, int]) -> tuple[LabelledImage, ...]:
    images = []
    for number, line in read_entries(path, "list of aircraft"):
        image, _, variant = line.partition(" ")
        if variant.strip() not in labels:
            raise InputError(
                f"{path}, line {number}: expected an image and its variant out of {VARIANTS}, found {line!r}"
            )
        images.append(LabelledImage(f"{image}.jpg", labels[variant.strip()]))
    return tuple(images)
