"""The section on calibration: a reliability diagram per method."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...results.metrics import ECE_BINS, Tally
from .chart_data import ReliabilityDiagram
from .explanations import RELIABILITY
from .groups import pool_counts
from .sources import Source


@dataclass(frozen=True)
class Reliability:
    """Reliability diagrams of all methods, and their explanation."""

    diagrams: tuple[ReliabilityDiagram, ...]
    note: str


def digest_reliability(source: Source) -> Reliability:
    """Return a reliability diagram per method."""
    pools = (pool_counts(source.results, label) for label in source.labels)
    diagrams = (
        make_diagram(*pair, series) for series, pair in enumerate(zip(source.labels, pools, strict=True))
    )
    return Reliability(tuple(diagrams), RELIABILITY)


def make_diagram(label: str, pool: Tally, series: int) -> ReliabilityDiagram:
    """Return the reliability diagram of a method, given the counts of all images and its colour."""
    edges = np.linspace(0, 100, ECE_BINS + 1)
    filled = pool.bin_images > 0
    error = f"ECE {100 * pool.ece:.2f} %"
    return ReliabilityDiagram(
        method=label,
        error=error,
        title=f"Reliability of {label}, {error}",
        series=series,
        centers=(edges[:-1] + 100 / ECE_BINS / 2)[filled],
        accuracy=100 * pool.bin_correct[filled] / pool.bin_images[filled],
        confidence=100 * pool.bin_confidence[filled] / pool.bin_images[filled],
        shares=100 * pool.bin_images / max(1.0, float(pool.bin_images.sum())),
    )
