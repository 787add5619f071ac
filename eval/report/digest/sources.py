"""Results files of a report: collecting, reading, checking and naming."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ....engine.errors import InputError
from ....engine.files import hash_file
from ....engine.ordinary_files import read_json
from ...results.results_file import Results, read_results
from ...sweep.folder import GRID_FILE, RESULTS_FOLDER
from .check_results import check_results


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


def collect_results(paths: Sequence[Path]) -> tuple[list[Source], list[Path]]:
    """Return results in the order of the paths, each file once, and the skipped files of folders.

    A folder stands for all of its `*.json` files with results, sorted by name; other JSON files are skipped.
    The folder of a sweep stands for the results of its graphs.

    Raises:
        InputError: a file cannot be read, is damaged, or has no results; a folder has none.
    """
    unique: dict[Path, Path] = {}
    skipped: list[Path] = []
    for path in paths:
        files = _list_folder(path, skipped) if path.is_dir() else [path]
        for file in files:
            unique.setdefault(file.resolve(), file)
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
            f"expected results of `fozo adapt` in {folder}, found no such *.json; name the file or its folder"
        )
    return result_files


def _has_results(path: Path) -> bool:
    """Return true for results, and for damaged JSON, which is then reported instead of skipped."""
    try:
        content = read_json(path)
    except (OSError, ValueError):
        return True
    return isinstance(content, dict) and "protocol" in content


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


def _read_source(path: Path, name: str) -> Source:
    results = read_results(path)
    try:
        check_results(results)
    except ValueError as error:
        raise InputError(f"{path}: {error}; run fozo adapt again") from error
    return Source(path, name, hash_file(path), results)
