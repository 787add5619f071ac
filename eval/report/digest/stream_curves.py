"""What happened along the stream: running accuracy and diagnostics, over the images in their order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from ...protocol import Protocol
from ...results.outcome import DomainResult, Run
from ...results.table import name_of

WINDOW = 500  # images that an accuracy along the stream is taken over, at least
DRIVING = ("epsilon", "rate", "loss")  # what a person looks at first among what methods say of themselves
_LARGEST = 1e100  # that can be drawn: beyond, differences overflow
_POINTS = 400  # that a line is drawn through, about
_NAMES = 32  # that fit along a chart

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Line:
    """A line over the stream: `images` seen so far and `values` `[N]`; NaN is a gap."""

    images: Floats
    values: Floats


@dataclass(frozen=True)
class Span:
    """A named stretch of the stream, in images."""

    start: int
    end: int
    name: str


def segments(run: Run) -> list[list[DomainResult]]:
    """The domains of each segment of the stream."""
    return [list(group) for _, group in groupby(run.domains, key=lambda domain: domain.segment)]


def bounds(run: Run, label: str) -> list[int]:
    """Where each segment ends in a method's trace, in points.

    Raises:
        ValueError: the trace and the domains do not have the same images.
    """
    points = np.cumsum([0, *run.traces[label].images])
    seen = [sum(domain.methods[label].tally.images for domain in segment) for segment in segments(run)]
    ends = np.cumsum(seen, dtype=np.int64)
    found = np.searchsorted(points, ends)
    if points[-1] != (ends[-1] if len(ends) else 0) or not np.array_equal(points[found], ends):
        raise ValueError(f"seed {run.seed}: the trace of {label} has other images than its domains")
    return [int(place) for place in found]


def running_accuracy(images: Sequence[int], correct: Sequence[int], window: int = WINDOW) -> Floats:
    """Accuracy over the last images at each point: as few points as hold `window` images, or all so far."""
    seen, right = np.cumsum([0, *images]), np.cumsum([0, *correct])
    first = np.maximum(np.searchsorted(seen, seen[1:] - window, side="right") - 1, 0)
    return np.asarray((right[1:] - right[first]) / np.maximum(seen[1:] - seen[first], 1), np.float64)


def accuracy(runs: Sequence[Run], label: str) -> tuple[Line, int]:
    """Running accuracy, begun anew in every segment, as a mean over seeds; and over how many.

    A seed that was interrupted within a point, or that lacks a domain in between, does not line up with the
    others and is left out.
    """
    longest = max(runs, key=lambda run: len(run.traces[label].images))
    alike = [run for run in runs if run.traces[label].images and _leads_to(longest, run, label)]
    values = np.full((len(alike), len(longest.traces[label].images)), np.nan)
    for row, run in zip(values, alike, strict=True):
        trace, start = run.traces[label], 0
        for end in bounds(run, label):
            row[start:end] = running_accuracy(trace.images[start:end], trace.correct[start:end])
            start = end
    counts = (~np.isnan(values)).sum(axis=0)
    means = np.nansum(values, axis=0) / counts
    return _line(longest, label, means), len(alike)


def _leads_to(whole: Run, run: Run, label: str) -> bool:
    """Whether a run has the domains and the points that another one begins with."""
    domains, of_whole = ([(d.name, d.severity, d.round) for d in each.domains] for each in (run, whole))
    points, all_points = (each.traces[label].images for each in (run, whole))
    return domains == of_whole[: len(domains)] and points == all_points[: len(points)]


def diagnostic(run: Run, label: str, name: str) -> Line | None:
    """What a method said of itself by this name; None if it never did."""
    values = run.traces[label].values.get(name)
    if values is None or all(value is None for value in values):
        return None
    said = np.array([np.nan if value is None else value for value in values], np.float64)
    return _line(run, label, np.clip(said, -_LARGEST, _LARGEST))


def diagnostics(run: Run) -> list[str]:
    """The names of all that any method said of itself: what drives the adaptation first."""
    found = {name for label in run.traces for name in run.traces[label].values}
    names = sorted(name for name in found if any(diagnostic(run, label, name) for label in run.traces))
    first = [name for name in DRIVING if name in names]
    return [*first, *(name for name in names if name not in first)]


def spans(run: Run, protocol: Protocol) -> list[Span]:
    """Named stretches of the stream: its domains, or where these are many, what several have in common."""
    parts, start = [], 0
    for segment in segments(run):
        seen = sum(next(iter(domain.methods.values())).tally.images for domain in segment)
        parts.append((segment, start, start + seen))
        start += seen
    for name in _namings(protocol):
        groups = [list(group) for _, group in groupby(parts, key=lambda part: name(part[0]))]
        if len(groups) <= _NAMES:
            return [Span(group[0][1], group[-1][2], name(group[0][0])) for group in groups]
    return []


def _namings(protocol: Protocol) -> list[Callable[[list[DomainResult]], str]]:
    """Ways to name a segment, the most telling first."""

    def alone(name: Callable[[DomainResult], str]) -> Callable[[list[DomainResult]], str]:
        return lambda segment: name(segment[0]) if len(segment) == 1 else "all domains mixed"

    if protocol.rounds > 1:
        return [alone(lambda domain: f"round {domain.round}")]
    return [
        alone(lambda domain: name_of(domain, protocol)),
        alone(lambda domain: domain.name),
        alone(lambda domain: domain.name if domain.severity is None else f"severity {domain.severity}"),
    ]


def _line(run: Run, label: str, values: Floats) -> Line:
    """A line with a gap between segments, and with as few points as can be told apart."""
    images, start = np.cumsum(run.traces[label].images).astype(np.float64), 0
    stride = max(1, round(len(images) / _POINTS))
    xs, ys = [], []
    for end in bounds(run, label):
        if end == start:
            continue  # interrupted before its first batch
        kept = np.arange(end - 1, start - 1, -stride)[::-1]  # the last point of a segment is always there
        xs.append(np.append(images[kept], images[kept[-1:]]))
        ys.append(np.append(values[kept], np.nan))
        start = end
    return Line(np.concatenate(xs)[:-1], np.concatenate(ys)[:-1])
