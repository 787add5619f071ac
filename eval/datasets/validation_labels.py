"""The file that gives the classes of ImageNet's validation images where they lie in one folder."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from ...data.image_names import SUFFIXES
from ...data.text_lists import read_entries
from ...engine.errors import InputError

FORMS = (
    "'ILSVRC2012_val_00000001.JPEG 65', the class's number 0 to 999 in the order of the sorted WNIDs "
    "(val.txt), or 'ILSVRC2012_val_00000001,n01751748', its WNID (LOC_val_solution.csv)"
)
_LABEL = re.compile(r"[0-9]{1,4}|n[0-9]{8}")
_WNID = re.compile(r"n[0-9]{8}")
_IMAGES = 50_000


def read_labels(path: Path) -> dict[str, str]:
    """Return the label of each image, by the name of its file without folder and suffix.

    A line is `<file> <label>` or `<file>,<label>`; the rest of the line is ignored, and a header is skipped.
    Labels are either all numbers 0 to 999 in the order of the sorted WNIDs, or all WNIDs. A file may also
    have the WNIDs of all 50,000 images and nothing else, in the order of the images' numbers.

    Returns:
        Numbers as texts without leading zeros, or WNIDs.

    Raises:
        InputError: the file cannot be read, a line has another form, or an image has two labels.
    """
    entries = read_entries(path, "labels")
    rows = [(number, line.replace(",", " ").split()) for number, line in entries]
    if rows and all(len(fields) == 1 and _WNID.fullmatch(fields[0]) for _, fields in rows):
        return _number_labels([fields[0] for _, fields in rows], path)
    if len(rows) > 1 and all(len(fields) == 1 and fields[0].isdecimal() for _, fields in rows):
        raise InputError(
            f"{path} has a number per line and nothing else. In ILSVRC2012's own ground truth these numbers "
            "are not the classes' places among the sorted WNIDs, so they would be wrong for nearly every "
            f"image; give a file with lines like {FORMS}"
        )
    if rows and _is_header(rows[0][1]):
        rows = rows[1:]
    labels: dict[str, str] = {}
    for number, fields in rows:
        name, label = _parse_entry(fields, f"line {number} of {path}")
        if labels.setdefault(name, label) != label:
            raise InputError(f"line {number} of {path} gives {name} a second label, {label}; remove one")
    _check_kind(labels, path)
    return labels


def get_stem(file: str) -> str:
    """Return a file's name without folder, and without the suffix of an image."""
    name = PurePosixPath(file)
    return name.stem if name.suffix.lower() in SUFFIXES else name.name


def _number_labels(wnids: list[str], path: Path) -> dict[str, str]:
    """Return the label of each validation image, given all labels in the order of the images' numbers."""
    if len(wnids) != _IMAGES:
        raise InputError(
            f"expected the WNIDs of all {_IMAGES:,} validation images, in the order of the images' numbers, "
            f"as {path} has one per line and nothing else, found {len(wnids):,}; give a file with lines like "
            f"{FORMS}"
        )
    return {f"ILSVRC2012_val_{number:08d}": wnid for number, wnid in enumerate(wnids, 1)}


def _is_header(fields: list[str]) -> bool:
    """Return whether a line has words without digits, so neither an image nor a label."""
    return len(fields) > 1 and not any(character.isdecimal() for character in "".join(fields))


def _parse_entry(fields: list[str], where: str) -> tuple[str, str]:
    if len(fields) < 2 or not _LABEL.fullmatch(fields[1]):
        raise InputError(
            f"expected an image and its class in {where}, found {' '.join(fields)!r}; lines are {FORMS}"
        )
    label = fields[1]
    return get_stem(fields[0]), str(int(label)) if label.isdecimal() else label


def _check_kind(labels: dict[str, str], path: Path) -> None:
    numbers = [int(label) for label in labels.values() if label.isdecimal()]
    if not labels or len(numbers) not in (0, len(labels)):
        content = "both" if labels else "no line"
        raise InputError(f"expected numbers or WNIDs in {path}, found {content}; lines are {FORMS}")
    if max(numbers, default=0) > 999:
        raise InputError(
            f"expected numbers from 0 to 999 in {path}, found {max(numbers)}: numbers from 1 to 1000 are "
            f"ILSVRC2012's own, which do not follow the sorted WNIDs; lines are {FORMS}"
        )
