"""Consistency checks of results, so that no renderer fails halfway."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from ...results.outcome import DomainResult, MethodResult, Run, Trace
from ...results.results_file import Results
from .stream_curves import find_segment_ends

_LARGEST = 2**63


def check_results(results: Results) -> None:
    """Check the ranges and the consistency of results.

    Raises:
        ValueError: a value is out of range, or contradicts another; the message names its field.
    """
    labels = list(results.methods)
    _expect(bool(labels), "methods: expected at least one, found none")
    _check_numbers(results.protocol, "protocol")
    for index, run in enumerate(results.runs):
        _check_run(run, labels, f"runs[{index}]")
    _expect(any(run.images for run in results.runs), "runs: expected processed images, found none")


def _check_run(run: Run, labels: Sequence[str], where: str) -> None:
    _check_numbers(run, where)
    _check_labels(run.traces, labels, f"{where}.traces")
    for index, domain in enumerate(run.domains):
        _check_domain(domain, labels, f"{where}.domains[{index}]")
    for label, trace in run.traces.items():
        _check_trace(trace, f"{where}.traces.{label}")
        find_segment_ends(run, label)


def _check_domain(domain: DomainResult, labels: Sequence[str], where: str) -> None:
    _check_numbers(domain, where)
    _check_labels(domain.methods, labels, f"{where}.methods")
    for label, result in domain.methods.items():
        check_result(result, f"{where}.methods.{label}")
    counts = sorted({result.tally.images for result in domain.methods.values()})
    _expect(len(counts) == 1, f"{where}.methods: expected equal numbers of images, found {counts}")


def check_result(result: MethodResult, where: str) -> None:
    """Check the counts of one method on one set of images.

    Args:
        result: the counts.
        where: its field, for messages.

    Raises:
        ValueError: a count is out of range, or contradicts another.
    """
    tally = result.tally
    _check_numbers(result, where)
    _check_numbers(tally, where)
    correct, bits = max(tally.top1, tally.top5), int(result.right.array().sum())
    _expect(correct <= tally.images, f"{where}: expected at most {tally.images} correct, found {correct}")
    _expect(bits == tally.top1, f"{where}.right: expected {tally.top1} right images, found {bits}")
    if tally.classes is not None:
        counts = int(tally.classes.images.sum()), int(tally.classes.correct.sum())
        expected = (tally.images, tally.top1)
        _expect(counts == expected, f"{where}.by_class: expected {expected} images in all, found {counts}")


def _check_trace(trace: Trace, where: str) -> None:
    _check_numbers(trace, where)
    lengths = sorted({len(trace.images), len(trace.correct), *map(len, trace.values.values())})
    _expect(len(lengths) == 1, f"{where}: expected lists of equal length, found lengths {lengths}")


def _check_labels(values: Iterable[str], labels: Sequence[str], where: str) -> None:
    _expect(list(values) == labels, f"{where}: expected {', '.join(labels)}, found {', '.join(values)}")


def _check_numbers(record: object, where: str) -> None:
    """Check that a record's own numbers, alone or in lists, are neither negative nor too large."""
    for name, value in vars(record).items():
        for number in value if isinstance(value, list | tuple | np.ndarray) else [value]:
            valid = not isinstance(number, int | float) or 0 <= number < _LARGEST
            _expect(valid, f"{where}.{name}: expected a number from 0 to 2^63, found {number!r:.40}")


def _expect(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
