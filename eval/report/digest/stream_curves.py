"""Curves over the stream: running accuracy and diagnostics of the methods."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

import numpy as np

from ...protocol import Protocol
from ...results.outcome import DomainResult, Run
from ...results.table import format_domain_name
from .chart_data import Curve, Floats, Span

WINDOW = 500  # images that a running accuracy is taken over, at least
_MAGNITUDE_LIMIT = 1e100  # differences of larger values overflow while they are drawn
_POINTS = 400  # points of a curve, about
_MAX_NAMES = 32  # names that have room above a chart


def split_segments(run: Run) -> list[list[DomainResult]]:
    """Return the domains of each segment of the stream."""
    return [list(group) for _, group in groupby(run.domains, key=lambda domain: domain.segment)]


def find_segment_ends(run: Run, label: str) -> list[int]:
    """Return the end of each segment as an index into the points of a method's trace.

    Raises:
        ValueError: the trace and the domains do not have the same images.
    """
    image_counts = np.cumsum([0, *run.traces[label].images])
    images_of_segments = [
        sum(domain.methods[label].tally.images for domain in segment) for segment in split_segments(run)
    ]
    ends = np.cumsum(images_of_segments, dtype=np.int64)
    indices = np.searchsorted(image_counts, ends)
    expected_total = ends[-1] if len(ends) else 0
    if image_counts[-1] != expected_total or not np.array_equal(image_counts[indices], ends):
        raise ValueError(f"seed {run.seed}: the trace of {label} has other images than its domains")
    return [int(index) for index in indices]


def compute_running_accuracy(images: Sequence[int], correct: Sequence[int], window: int = WINDOW) -> Floats:
    """Return at each point the accuracy over the last images.

    Args:
        images: images of each point.
        correct: correct images of each point.
        window: minimum number of images; as few points are taken as have so many, or all so far.
    """
    image_counts, correct_counts = np.cumsum([0, *images]), np.cumsum([0, *correct])
    starts = np.maximum(np.searchsorted(image_counts, image_counts[1:] - window, side="right") - 1, 0)
    windows = np.maximum(image_counts[1:] - image_counts[starts], 1)
    return np.asarray((correct_counts[1:] - correct_counts[starts]) / windows, np.float64)


def average_running_accuracy(runs: Sequence[Run], label: str) -> tuple[Curve, int]:
    """Return the mean running accuracy over seeds, restarted in every segment, and the number of seeds.

    A seed is left out if it was interrupted within a point or lacks a domain in between, because its points
    are then of other images than those of the other seeds.
    """
    longest = max(runs, key=lambda run: len(run.traces[label].images))
    aligned = [run for run in runs if run.traces[label].images and _is_beginning(run, longest, label)]
    values = np.full((len(aligned), len(longest.traces[label].images)), np.nan)
    for row, run in zip(values, aligned, strict=True):
        trace, start = run.traces[label], 0
        for end in find_segment_ends(run, label):
            row[start:end] = compute_running_accuracy(trace.images[start:end], trace.correct[start:end])
            start = end
    counts = (~np.isnan(values)).sum(axis=0)
    means = np.nansum(values, axis=0) / counts
    return _make_curve(longest, label, means), len(aligned)


def _is_beginning(run: Run, longest: Run, label: str) -> bool:
    """Return true if a run has the domains and points that the longest one begins with."""
    domains, all_domains = (
        [(domain.name, domain.severity, domain.round) for domain in stream.domains]
        for stream in (run, longest)
    )
    points, all_points = (stream.traces[label].images for stream in (run, longest))
    return domains == all_domains[: len(domains)] and points == all_points[: len(points)]


def make_diagnostic_curve(run: Run, label: str, name: str) -> Curve | None:
    """Return a diagnostic of a method over the stream, or None if the method did not report it."""
    reported = run.traces[label].values.get(name)
    if reported is None or all(value is None for value in reported):
        return None
    values = np.array([np.nan if value is None else value for value in reported], np.float64)
    return _make_curve(run, label, np.clip(values, -_MAGNITUDE_LIMIT, _MAGNITUDE_LIMIT))


def list_diagnostics(run: Run) -> list[str]:
    """Return the sorted names of all diagnostics that any method reported."""
    names = {name for label in run.traces for name in run.traces[label].values}
    return sorted(
        name for name in names if any(make_diagnostic_curve(run, label, name) for label in run.traces)
    )


def name_spans(run: Run, protocol: Protocol) -> tuple[Span, ...]:
    """Return the domains of the stream as named stretches, or groups of them where there are many."""
    segments, start = [], 0
    for segment in split_segments(run):
        end = start + sum(next(iter(domain.methods.values())).tally.images for domain in segment)
        segments.append((segment, start, end))
        start = end
    for name_segment in _list_namings(protocol):
        groups = [list(group) for _, group in groupby(segments, key=lambda item: name_segment(item[0]))]
        if len(groups) <= _MAX_NAMES:
            return tuple(Span(group[0][1], group[-1][2], name_segment(group[0][0])) for group in groups)
    return ()


def _list_namings(protocol: Protocol) -> list[Callable[[list[DomainResult]], str]]:
    """Return functions that name a segment, from the most to the least specific."""

    def name_single(name: Callable[[DomainResult], str]) -> Callable[[list[DomainResult]], str]:
        return lambda segment: name(segment[0]) if len(segment) == 1 else "all domains mixed"

    if protocol.rounds > 1:
        return [name_single(lambda domain: f"round {domain.round}")]
    return [
        name_single(lambda domain: format_domain_name(domain, protocol)),
        name_single(lambda domain: domain.name),
        name_single(lambda domain: domain.name if domain.severity is None else f"severity {domain.severity}"),
    ]


def _make_curve(run: Run, label: str, values: Floats) -> Curve:
    """Return a curve with a gap between segments, thinned to about `_POINTS` points."""
    images, start = np.cumsum(run.traces[label].images).astype(np.float64), 0
    stride = max(1, round(len(images) / _POINTS))
    xs, ys = [], []
    for end in find_segment_ends(run, label):
        if end == start:
            continue  # interrupted before its first batch
        indices = np.arange(end - 1, start - 1, -stride)[::-1]  # the last point of a segment is always there
        xs.append(np.append(images[indices], images[indices[-1:]]))
        ys.append(np.append(values[indices], np.nan))
        start = end
    return Curve(np.concatenate(xs)[:-1], np.concatenate(ys)[:-1])
