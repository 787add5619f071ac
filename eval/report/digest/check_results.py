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
    settings, setting = get_args(Setting), results.protocol.setting
    _expect(setting in settings, f"protocol, setting: expected {', '.join(settings)}, found {setting!r}")
    _check_integers([*results.protocol.severities, *results.protocol.seeds], "protocol")
    for name in ("bundle", "engine", "methods", "versions", "machine"):
        _expect(isinstance(getattr(results, name), dict), f"{name}: expected an object")
    labels = list(results.methods)
    _expect(bool(labels), "methods: expected at least one, found none")
    for label, method in results.methods.items():
        _expect(isinstance(method, dict), f"methods, {label}: expected an object")
        _expect(isinstance(method.get("options"), dict), f"methods, {label}, options: expected an object")
    _expect(isinstance(results.created, str), "created: expected a text")
    for run in results.runs:
        _check_run(run, labels)
    _expect(any(run.images for run in results.runs), "runs: expected processed images, found none")


def _check_run(run: Run, labels: Sequence[str]) -> None:
    where = f"seed {run.seed}"
    _check_fields(run, where)
    _expect(list(run.traces) == labels, f"{where}: expected traces of {', '.join(labels)}, found others")
    for domain in run.domains:
        location = f"{where}, {domain.name}"
        _check_fields(domain, location)
        _expect(
            list(domain.methods) == labels,
            f"{location}: expected the methods {', '.join(labels)}, found others",
        )
        for label, result in domain.methods.items():
            _check_fields(result, f"{location}, {label}")
            _check_fields(result.tally, f"{location}, {label}")
            tally = result.tally
            correct = max(tally.top1, tally.top5)
            _expect(
                correct <= tally.images,
                f"{location}, {label}: expected at most {tally.images} correct images, found {correct}",
            )
            bits = int(result.right.array().sum())
            _expect(
                bits == tally.top1,
                f"{location}, {label}, right: expected {tally.top1} set bits, found {bits}",
            )
            for bins in (tally.bin_images, tally.bin_confidence, tally.bin_correct):
                _expect(
                    all(0 <= value < _LARGEST for value in bins),
                    f"{location}, {label}, bins: expected counts",
                )
        image_counts = {result.tally.images for result in domain.methods.values()}
        _expect(len(image_counts) == 1, f"{location}: expected equal numbers of images for all methods")
    for label, trace in run.traces.items():
        _check_trace(trace, f"{where}, trace of {label}")
        find_segment_ends(run, label)


def _check_trace(trace: Trace, where: str) -> None:
    _check_fields(trace, where)
    _check_integers([*trace.images, *trace.correct], where)
    _expect(isinstance(trace.values, dict), f"{where}, values: expected an object")
    columns = list(trace.values.values())
    lengths = {len(trace.images), len(trace.correct), *map(len, columns)}
    _expect(len(lengths) == 1, f"{where}: expected lists of equal length, found lengths {sorted(lengths)}")
    values = [value for column in columns for value in column if value is not None]
    _expect(
        all(isinstance(v, (int, float)) and math.isfinite(v) for v in values),
        f"{where}, values: expected finite numbers",
    )


def _check_fields(record: Any, where: str) -> None:
    """Check that plain fields of a dataclass have the declared types and that numbers are in range."""
    for field in fields(record):
        kinds, value = _KINDS.get(str(field.type)), getattr(record, field.name)
        if kinds is None:
            continue
        valid = isinstance(value, kinds) and (not isinstance(value, bool) or bool in kinds)
        if valid and isinstance(value, (int, float)):
            valid = 0 <= value < _LARGEST
        _expect(valid, f"{where}, {field.name}: expected {field.type} of at least 0, found {value!r:.40}")


def _check_integers(values: Iterable[object], where: str) -> None:
    for value in values:
        valid = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _LARGEST
        _expect(valid, f"{where}: expected an integer of at least 0, found {value!r:.40}")


def _expect(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
