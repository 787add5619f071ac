"""The results files of a report: found, read, checked and named."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ....engine.errors import InputError, reason
from ....engine.files import sha256_of
from ...results.results_file import Results, read
from ...sweep.folder import GRID_FILE, RESULTS_FOLDER
from .check_results import check


@dataclass(frozen=True)
class Source:
    """A results file.

    Attributes:
        path: as it was given.
        name: short, and different from the names of the others.
        sha256: of its content.
        results: what it says.
    """

    path: Path
    name: str
    sha256: str
    results: Results

    @property
    def labels(self) -> list[str]:
        """The methods; the others are compared with the first."""
        return list(self.results.methods)


def collect(paths: Sequence[Path]) -> tuple[list[Source], list[Path]]:
    """Results in the order given, each file once; and what was passed over in folders.

    Of a folder, all files `*.json` with results are taken, by name; other JSON is passed over. Of a sweep's
    folder, these are the results of its graphs.

    Raises:
        InputError: a file cannot be read, is damaged, or has no results; a folder has none.
    """
    found: dict[Path, Path] = {}
    passed: list[Path] = []
    for path in paths:
        files = _in_folder(path, passed) if path.is_dir() else [path]
        for file in files:
            found.setdefault(file.resolve(), file)
    chosen = list(found.values())
    names = _names(chosen)
    return [_source(path, name) for path, name in zip(chosen, names, strict=True)], passed


def _in_folder(folder: Path, passed: list[Path]) -> list[Path]:
    files = sorted(path for path in folder.glob("*.json") if path.is_file())
    if (grid := folder / GRID_FILE) in files:
        files = [path for path in files if path != grid]
        files += sorted((folder / RESULTS_FOLDER).glob("*.json"))
        if not files:
            raise InputError(
                f"{folder} is a sweep without results, so it has not begun or was killed; run the same "
                "command fozo sweep again, which goes on and writes them when it ends or is interrupted"
            )
    taken = [path for path in files if _has_results(path)]
    passed += [path for path in files if path not in taken]
    if not taken:
        raise InputError(
            f"expected results of `fozo adapt` in {folder}, found no such *.json; name the file or its folder"
        )
    return taken


def _has_results(path: Path) -> bool:
    """Whether JSON looks like results; damaged JSON does, so that it is reported and not passed over."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return True
    return isinstance(content, dict) and "protocol" in content


def _names(paths: Sequence[Path]) -> list[str]:
    """For each path the shortest end, by folders, that no other has."""
    whole = [path.resolve() for path in paths]
    parts = [path.with_suffix("").parts for path in whole]
    if len(set(parts)) < len(parts):  # they differ in what comes after the last point
        parts = [path.parts for path in whole]
    names = []
    for own in parts:
        length = next(n for n in range(1, len(own) + 1) if sum(p[-n:] == own[-n:] for p in parts) == 1)
        names.append("/".join(own[-length:]))
    return names


def _source(path: Path, name: str) -> Source:
    try:
        results = read(path)
        check(results)
        return Source(path, name, sha256_of(path), results)
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise InputError(
            f"{path} is not a whole results file: {reason(error)}; run fozo adapt again"
        ) from error
