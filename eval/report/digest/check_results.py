"""Consistency checks of results, so that no renderer fails halfway."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any, get_args

from ...protocol import Setting
from ...results.outcome import Run, Trace
from ...results.results_file import Results
from .stream_curves import find_segment_ends

_LARGEST = 2**63
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


def check(results: Results) -> None:
    """Check the types, ranges and consistency of results.

    Raises:
        ValueError: a value has the wrong type, is not finite, or contradicts another; the message names it.
    """
    _check_fields(results.protocol, "protocol")
    if results.protocol.setting not in get_args(Setting):
        raise ValueError(f"there is no setting {results.protocol.setting!r}")
    _check_integers([*results.protocol.severities, *results.protocol.seeds], "protocol")
    for name in ("bundle", "engine", "methods", "versions", "machine"):
        _expect(isinstance(getattr(results, name), dict), f"{name} is no object")
    labels = list(results.methods)
    _expect(bool(labels), "it has no methods")
    for label, method in results.methods.items():
        _expect(isinstance(method, dict), f"method {label} is no object")
        _expect(isinstance(method.get("options"), dict), f"method {label} has no options")
    _expect(isinstance(results.created, str), "created is no text")
    for run in results.runs:
        _check_run(run, labels)
    _expect(any(run.images for run in results.runs), "no image was seen")


def _check_run(run: Run, labels: Sequence[str]) -> None:
    where = f"seed {run.seed}"
    _check_fields(run, where)
    _expect(list(run.traces) == labels, f"{where}: traces are of other methods")
    for domain in run.domains:
        location = f"{where}, {domain.name}"
        _check_fields(domain, location)
        _expect(list(domain.methods) == labels, f"{location}: other methods")
        for label, result in domain.methods.items():
            _check_fields(result, f"{location}, {label}")
            _check_fields(result.tally, f"{location}, {label}")
            tally = result.tally
            _expect(max(tally.top1, tally.top5) <= tally.images, f"{location}, {label}: more right than seen")
            right = int(result.right.array().sum())
            _expect(
                right == tally.top1,
                f"{location}, {label}: {right} bits for {tally.top1} images that are right",
            )
            for bins in (tally.bin_images, tally.bin_confidence, tally.bin_correct):
                _expect(all(0 <= value < _LARGEST for value in bins), f"{location}, {label}: bins")
        image_counts = {result.tally.images for result in domain.methods.values()}
        _expect(len(image_counts) == 1, f"{location}: methods saw different images")
    for label, trace in run.traces.items():
        _check_trace(trace, f"{where}, trace of {label}")
        find_segment_ends(run, label)


def _check_trace(trace: Trace, where: str) -> None:
    _check_fields(trace, where)
    _check_integers([*trace.images, *trace.correct], where)
    _expect(isinstance(trace.values, dict), f"{where}: values")
    columns = list(trace.values.values())
    _expect({len(trace.images)} == {len(trace.correct), *map(len, columns), len(trace.images)}, where)
    values = [value for column in columns for value in column if value is not None]
    _expect(all(isinstance(v, (int, float)) and math.isfinite(v) for v in values), f"{where}: values")


def _check_fields(record: Any, where: str) -> None:
    """Check that plain fields of a dataclass have the declared types and that numbers are in range."""
    for field in fields(record):
        kinds, value = _KINDS.get(str(field.type)), getattr(record, field.name)
        if kinds is None:
            continue
        right = isinstance(value, kinds) and (not isinstance(value, bool) or bool in kinds)
        if right and isinstance(value, (int, float)):
            right = 0 <= value < _LARGEST
        _expect(right, f"{where}: {field.name} is {value!r:.40}")


def _check_integers(values: Iterable[object], where: str) -> None:
    for value in values:
        right = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _LARGEST
        _expect(right, f"{where}: {value!r:.40} is no number of images, seed or severity")


def _expect(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
