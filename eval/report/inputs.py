"""The results files of a report: found, read, checked and named."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args

from ...engine.errors import InputError, reason
from ...engine.files import sha256_of
from ..outcome import Run, Trace
from ..protocol import Setting
from ..results import Results, read
from .stream import bounds

_LARGEST = 2**63


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

    Of a folder, all files `*.json` with results are taken, by name; other JSON is passed over.

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
    parts = [path.resolve().with_suffix("").parts for path in paths]
    names = []
    for own in parts:
        length = next(n for n in range(1, len(own) + 1) if sum(p[-n:] == own[-n:] for p in parts) == 1)
        names.append("/".join(own[-length:]))
    return names


def _source(path: Path, name: str) -> Source:
    try:
        results = read(path)
        _check(results)
        return Source(path, name, sha256_of(path), results)
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise InputError(
            f"{path} is not a whole results file: {reason(error)}; run fozo adapt again"
        ) from error


def _check(results: Results) -> None:
    """Raises ValueError where results do not fit together, so that nothing fails halfway through a page."""
    _fields(results.protocol, "protocol")
    if results.protocol.setting not in get_args(Setting):
        raise ValueError(f"there is no setting {results.protocol.setting!r}")
    _integers([*results.protocol.severities, *results.protocol.seeds], "protocol")
    for name in ("bundle", "engine", "methods", "versions", "machine"):
        _expect(isinstance(getattr(results, name), dict), f"{name} is no object")
    labels = list(results.methods)
    _expect(bool(labels), "it has no methods")
    for label, method in results.methods.items():
        _expect(isinstance(method, dict), f"method {label} is no object")
        _expect(isinstance(method.get("options"), dict), f"method {label} has no options")
    _expect(isinstance(results.created, str), "created is no text")
    for run in results.runs:
        _run(run, labels)
    _expect(any(run.images for run in results.runs), "no image was seen")


def _run(run: Run, labels: Sequence[str]) -> None:
    where = f"seed {run.seed}"
    _fields(run, where)
    _expect(list(run.traces) == labels, f"{where}: traces are of other methods")
    for domain in run.domains:
        place = f"{where}, {domain.name}"
        _fields(domain, place)
        _expect(list(domain.methods) == labels, f"{place}: other methods")
        for label, part in domain.methods.items():
            _fields(part, f"{place}, {label}")
            _fields(part.tally, f"{place}, {label}")
            tally = part.tally
            _expect(max(tally.top1, tally.top5) <= tally.images, f"{place}, {label}: more right than seen")
            for bins in (tally.bin_images, tally.bin_confidence, tally.bin_correct):
                _expect(all(0 <= value < _LARGEST for value in bins), f"{place}, {label}: bins")
        seen = {part.tally.images for part in domain.methods.values()}
        _expect(len(seen) == 1, f"{place}: methods saw different images")
    for label, trace in run.traces.items():
        _trace(trace, f"{where}, trace of {label}")
        bounds(run, label)


def _trace(trace: Trace, where: str) -> None:
    _fields(trace, where)
    _integers([*trace.images, *trace.correct], where)
    _expect(isinstance(trace.values, dict), f"{where}: values")
    columns = list(trace.values.values())
    _expect({len(trace.images)} == {len(trace.correct), *map(len, columns), len(trace.images)}, where)
    said = [value for column in columns for value in column if value is not None]
    _expect(all(isinstance(v, (int, float)) and math.isfinite(v) for v in said), f"{where}: values")


_KINDS: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "bool": (bool,),
    "int": (int,),
    "float": (int, float),
    "int | None": (int, type(None)),
    "float | None": (int, float, type(None)),
    "list[int]": (list,),
    "Setting": (str,),
}


def _fields(record: Any, where: str) -> None:
    """Plain fields of a dataclass are of the declared kinds, and numbers are finite and not negative."""
    for field in fields(record):
        kinds, value = _KINDS.get(str(field.type)), getattr(record, field.name)
        if kinds is None:
            continue
        right = isinstance(value, kinds) and (not isinstance(value, bool) or bool in kinds)
        if right and isinstance(value, (int, float)):
            right = 0 <= value < _LARGEST
        _expect(right, f"{where}: {field.name} is {value!r:.40}")


def _integers(values: Iterable[object], where: str) -> None:
    for value in values:
        right = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _LARGEST
        _expect(right, f"{where}: {value!r:.40} is no number of images, seed or severity")


def _expect(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
