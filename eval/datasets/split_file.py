"""Split files of CoOp and its successors: JSON with the training, validation and test images of a set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from ...engine.errors import InputError, reason
from ...engine.ordinary_files import read_json
from .class_folders import list_entries
from .class_wording import word_class
from .published_sets import PUBLISHED_SETS, find_published_set
from .split_data import LabelledImage, SplitData, has_file

_SECTIONS = ("train", "val", "test")
MAX_DIGITS = 9  # of a label that is written as a text
_FORM = '{"train": [[path, label, class name], …], "val": …, "test": …}'


def read_split_file(path: Path, folder: Path) -> SplitData:
    """Read a split file and find the folder of its images.

    Labels must be 0 to K − 1, and each must have one name and training images. A file without test images,
    as SVHN's, takes them from the class folders of `test`.

    Args:
        path: the file.
        folder: the folder of the data set.

    Raises:
        InputError: the file cannot be read or contradicts itself, or its images cannot be found.
    """
    rows = _read_rows(path)
    names = _collect_names(rows, path)
    sections = {
        section: [LabelledImage(image, label) for image, label, _ in rows[section]] for section in rows
    }
    published = find_published_set(path.name)
    images = _find_images(folder, path, [image.path for image in sections["train"]], published)
    if "test" not in sections:
        prefix = images.name
        sections = {
            section: [LabelledImage(f"{prefix}/{image.path}", image.label) for image in listed]
            for section, listed in sections.items()
        }
        images = images.parent
        sections["test"] = _list_test_folder(images, names, path)
    data = SplitData(
        name=published or folder.resolve().name,
        folder=images,
        class_ids=names if len(set(names)) == len(names) else tuple(map(str, range(len(names)))),
        class_names=tuple(map(word_class, names)),
        train=tuple(sections["train"]),
        validation=tuple(sections.get("val", ())),
        test=tuple(sections["test"]),
        published=published,
        origin=path.name,
    )
    data.check_training_classes()
    return data


def _read_rows(path: Path) -> dict[str, list[tuple[str, int, str]]]:
    """Return path, label and class name of every image, by section."""
    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the split file {path}: {reason(error)}") from error
    if not isinstance(content, Mapping) or not content.get("train"):
        raise InputError(
            f"expected a split file {_FORM} with training images in {path}, found something else"
        )
    rows: dict[str, list[tuple[str, int, str]]] = {}
    for section in _SECTIONS:
        if section in content:
            items = content[section] if isinstance(content[section], list) else [content[section]]
            rows[section] = [
                _check_row(item, f"{path}: {section}[{index}]") for index, item in enumerate(items)
            ]
    return rows


def _check_row(row: Any, where: str) -> tuple[str, int, str]:
    if not isinstance(row, list) or len(row) != 3:
        raise InputError(f"{where}: expected [path, label, class name], found {row!r:.60}")
    path, label, name = row
    if isinstance(label, str) and label.isdecimal() and len(label) <= MAX_DIGITS:
        label = int(label)
    if type(label) is not int or label < 0 or not isinstance(path, str) or not isinstance(name, str):
        raise InputError(f"{where}: expected a path, a label from 0 up, and a name, found {row!r:.60}")
    pure = PurePosixPath(path)
    if not path or pure.is_absolute() or ".." in pure.parts or "\\" in path or not name.strip():
        raise InputError(
            f"{where}: expected a path below the folder of the images, and a class name, found {row!r:.60}"
        )
    return path, label, name


def _collect_names(rows: Mapping[str, list[tuple[str, int, str]]], path: Path) -> tuple[str, ...]:
    """Return the name of each label, after checking that each has one."""
    names: dict[int, str] = {}
    for section in rows.values():
        for _, label, name in section:
            if names.setdefault(label, name) != name:
                raise InputError(
                    f"expected one name for each label in {path}, found {names[label]!r} and {name!r} for "
                    f"label {label}"
                )
    missing = next((number for number, label in enumerate(sorted(names)) if number != label), None)
    if missing is not None:
        raise InputError(
            f"expected labels from 0 to {max(names)} in {path}, found no image of label {missing}"
        )
    return tuple(names[label] for label in range(len(names)))


def _find_images(folder: Path, path: Path, images: list[str], published: str | None) -> Path:
    """Return the folder that the paths are relative to: the published one, or the only one that fits."""
    first = images[0]
    if published is not None:
        expected = folder / PUBLISHED_SETS[published].images
        if not has_file(expected, first):
            raise InputError(
                f"expected the images of {path.name} in {expected}, found no {expected / first}; unpack them "
                "there, as CoOp's instructions say"
            )
        return expected
    candidates = [folder, *(folder / name for name in list_entries(folder).folders)]
    fitting = [candidate for candidate in candidates if has_file(candidate, first)]
    if len(fitting) != 1:
        problem = f"both {fitting[0]} and {fitting[1]} have" if fitting else f"{folder} and its folders lack"
        raise InputError(
            f"expected one folder with the images of {path.name}, but {problem} {first}; name the folder "
            "that holds them with --data"
        )
    return fitting[0]


def _list_test_folder(folder: Path, names: tuple[str, ...], path: Path) -> list[LabelledImage]:
    """Return the images in `test/<class>/`, or none if there is no such folder."""
    test = folder / "test"
    if not test.is_dir():
        return []
    folders = set(list_entries(test).folders)
    if unknown := sorted(folders - set(names)):
        raise InputError(
            f"{test} has class folders that {path.name} does not name: {', '.join(unknown[:3])}; its classes "
            f"are named like {names[0]}"
        )
    return [
        LabelledImage(f"test/{name}/{image}", label)
        for label, name in enumerate(names)
        if name in folders
        for image in list_entries(test / name).images
    ]
