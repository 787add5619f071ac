"""The section on accuracy against time per image."""

from __future__ import annotations

from collections.abc import Sequence

from .chart_data import Point, ScatterChart
from .explanations import SPEED, SPEED_OF_RUNS
from .groups import average_overall
from .plain_text import shorten
from .sources import Source


def digest_speed(sources: Sequence[Source]) -> ScatterChart:
    """Return a point per method and results file; methods whose time was not measured have none."""
    labels = list(dict.fromkeys(label for source in sources for label in source.labels))
    is_comparison = len(sources) > 1
    points = []
    for marker, source in enumerate(sources):
        for label, values in average_overall(source.results).items():
            rate, spread = values.images_per_second, 100 * (values.accuracy_std or 0.0)
            name = f"{shorten(label, 16)}, {shorten(source.name, 16)}" if is_comparison else label
            if rate:
                accuracy = 100 * values.accuracy
                points.append(Point(name, 1000 / rate, accuracy, spread, labels.index(label), marker))
    note = f"{SPEED} {SPEED_OF_RUNS}" if is_comparison else SPEED
    title = "Accuracy against time per image"
    return ScatterChart(title, "milliseconds per image", "accuracy, %", tuple(points), note)
