"""Data for few-shot tuning and transfer, in any of the published layouts."""

from __future__ import annotations

from pathlib import Path

from ...engine.errors import InputError
from .aircraft import VARIANTS, read_aircraft
from .class_folders import list_entries
from .published_sets import PUBLISHED_SETS
from .split_data import SplitData
from .split_file import read_split_file
from .split_folders import read_split_folders


def open_split_data(folder: Path, split: Path | None = None, dataset: str | None = None) -> SplitData:
    """Open labelled images that are divided for training and testing.

    The layout is recognised: a split file (`split_*.json`), the text files of FGVC Aircraft, class folders in
    `train/` and `test/` or `val/`, or class folders alone.

    Args:
        folder: the folder of the data set.
        split: the split file; a relative path is looked for in `folder`, too. None finds the only one.
        dataset: one of `PUBLISHED_SETS`; only for class folders, whose names it turns into names of classes.

    Raises:
        InputError: the data are not as they should be; or `dataset` is unknown, or contradicts the layout.
    """
    if dataset is not None and dataset not in PUBLISHED_SETS:
        raise InputError(f"expected a data set out of {', '.join(PUBLISHED_SETS)}, found {dataset!r}")
    data = _open_layout(folder, split, dataset)
    if dataset is not None and data.published != dataset:
        raise InputError(
            f"{folder} is {data.published or data.name} by its files, and was named {dataset}; leave the "
            "name out, or name the right folder"
        )
    return data


def _open_layout(folder: Path, split: Path | None, dataset: str | None) -> SplitData:
    if split is None:
        list_entries(folder)  # refuses what is no folder
        split = _find_split_file(folder)
    elif not split.exists() and (folder / split).exists():
        split = folder / split
    if split is not None:
        return read_split_file(split, folder)
    if (folder / VARIANTS).is_file():
        return read_aircraft(folder)
    return read_split_folders(folder, dataset)


def _find_split_file(folder: Path) -> Path | None:
    files = sorted(folder.glob("split_*.json"))
    if len(files) > 1:
        raise InputError(
            f"expected one split file in {folder}, found {', '.join(path.name for path in files[:3])}; say "
            "which one with --split"
        )
    return files[0] if files else None
