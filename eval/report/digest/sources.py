"""Results files of a report: collecting, reading, checking and naming."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ....engine.errors import InputError
from ....engine.files import hash_file
from ....engine.ordinary_files import read_json
from ...results.results_file import Results, read_results
from ...sweep.folder import GRID_FILE, RESULTS_FOLDER
from ...tuning.tuning_record import KIND, SEEDS_KIND, list_seed_files
from .check_results import check_results
from .tuning_sources import TuningSource, read_tuning_source


@dataclass(frozen=True)
class Source:
    """A results file.

    Attributes:
        path: path of the file as the caller gave it.
        name: short name, unique among the files of a report.
        sha256: SHA-256 of the content.
        results: its content.
    """

    path: Path
    name: str
    sha256: str
    results: Results

    @property
    def labels(self) -> list[str]:
        """Labels of the methods; the others are compared with the first."""
        return list(self.results.methods)


def collect_results(paths: Sequence[Path]) -> tuple[list[Source | TuningSource], list[Path]]:
    """Return results in the order of the paths, each file once, and the skipped files of folders.

    A folder stands for all of its `*.json` files with results, sorted by name; other JSON files are skipped.
    The folder of a sweep stands for the results of its graphs, and what sums up a tuning with several seeds
    for the files of these.

    Raises:
        InputError: a file cannot be read, is damaged, or has no results; a folder has none.
    """
    unique: dict[Path, Path] = {}
    skipped: list[Path] = []
    for path in paths:
        files = _list_folder(path, skipped) if path.is_dir() else [path]
        for file in files:
            for single in _expand_summary(file):
                unique.setdefault(single.resolve(), single)
    distinct = list(unique.values())
    names = _name_files(distinct)
    return [_read_source(path, name) for path, name in zip(distinct, names, strict=True)], skipped


def _list_folder(folder: Path, skipped: list[Path]) -> list[Path]:
    files = sorted(path for path in folder.glob("*.json") if path.is_file())
    if (grid := folder / GRID_FILE) in files:
        files = [path for path in files if path != grid]
        files += sorted((folder / RESULTS_FOLDER).glob("*.json"))
        if not files:
            raise InputError(
                f"{folder} is a sweep without results, so it has not begun or was killed; run the same "
                "command fozo sweep again, which goes on and writes them when it ends or is interrupted"
            )
    result_files = [path for path in files if _has_results(path)]
    skipped += [path for path in files if path not in result_files]
    if not result_files:
        raise InputError(
            f"expected results of fozo adapt, transfer or tune in {folder}, found no such *.json; name the "
            "file or its folder"
        )
    return result_files


def _has_results(path: Path) -> bool:
    """Return true for results, and for damaged JSON, which is then reported instead of skipped."""
    content = _try_json(path)
    return content is None or "protocol" in content or content.get("kind") in (KIND, SEEDS_KIND)


def _expand_summary(path: Path) -> list[Path]:
    """Return the files of the seeds if a file sums them up, else the file itself."""
    content = _try_json(path)
    is_summary = content is not None and content.get("kind") == SEEDS_KIND
    return list_seed_files(path, content) if is_summary and content is not None else [path]


def _try_json(path: Path) -> dict[str, Any] | None:
    """Return the JSON object in a file, empty if it is no object; None if it cannot be read."""
    try:
        content = read_json(path)
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else {}


def _name_files(paths: Sequence[Path]) -> list[str]:
    """Return for each path its shortest unique suffix of folders and file name."""
    resolved = [path.resolve() for path in paths]
    components = [path.with_suffix("").parts for path in resolved]
    if len(set(components)) < len(components):  # only their suffixes differ
        components = [path.parts for path in resolved]
    names = []
    for component in components:
        length = next(
            n for n in range(1, len(component) + 1) if sum(p[-n:] == component[-n:] for p in components) == 1
        )
        names.append("/".join(component[-length:]))
    return names


def _read_source(path: Path, name: str) -> Source | TuningSource:
    if (_try_json(path) or {}).get("kind") == KIND:
        return read_tuning_source(path, name)
    results = read_results(path)
    try:
        check_results(results)
    except ValueError as error:
        raise InputError(f"{path}: {error}; run fozo adapt again") from error
    return Source(path, name, hash_file(path), results)
