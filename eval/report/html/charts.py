"""The charts of a page: bars, reliability diagrams, points and curves.

Every function draws a chart as an element of the page. `name` is a prefix of all identifiers in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...results.metrics import ECE_BINS
from ..digest.chart_data import (
    BarChart,
    Floats,
    ReliabilityDiagram,
    ScatterChart,
    Span,
    StepChart,
    StreamChart,
)
from ..digest.learning_charts import LearningChart
from ..digest.plain_text import shorten
from .markup import Html
from .svg import GRID, INK, MUTED, add_axes, dash_of, draw_svg, marker_of, series_color

_CHARACTER = 6.3  # width in pixels, about
_ROW = 20  # height of a bar with its margins, in pixels


def draw_bars(chart: BarChart, name: str) -> Html:
    """Draw horizontal bars around 0, pale where they are noise."""
    rows = chart.bars
    width, left = 330, 14 + _CHARACTER * max(len(shorten(row.name, 22)) for row in rows)
    heights = np.cumsum([0.0, *(1.0 if row.kind == "single" else 1.3 for row in rows[1:])])

    def draw(figure: Any) -> None:
        ax = add_axes(figure, left, 58, 4, 38)
        numbers = 1 + 42 / (width - left - 58)  # right edge of the numbers, beside the axes
        for height, row in zip(heights, rows, strict=True):
            opacity = 0.4 if row.noise else 1.0
            ax.barh(height, row.value, 0.66, color=series_color(chart.series), alpha=opacity, linewidth=0)
            ax.plot([row.value - row.reach, row.value + row.reach], [height, height], color=INK, linewidth=1)
            text = f"{row.value:+.1f}".replace("-", "−")
            ax.text(numbers, height, text, transform=ax.get_yaxis_transform(), ha="right", va="center")
            ax.text(numbers + 0.02, height, "~" * row.noise, transform=ax.get_yaxis_transform(), va="center")
        ax.axvline(0, color=MUTED, linewidth=1)
        ax.set_xlim(chart.limits)
        ax.set_ylim(heights[-1] + 0.6, -0.6)
        names = [shorten(row.name.replace("_", " "), 22) for row in rows]
        ax.set_yticks(heights, names)
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
        ax.grid(axis="x")
        ax.set_xlabel("points of accuracy")

    return draw_svg(name, chart.title, width, 42 + _ROW * (float(heights[-1]) + 1.2), draw)


def draw_reliability(diagram: ReliabilityDiagram, name: str) -> Html:
    """Draw accuracy against confidence in bins, the gap between them, and the share of each bin."""
    width = 100 / ECE_BINS
    centers = np.linspace(0, 100, ECE_BINS + 1)[:-1] + width / 2
    accuracy, confidence = diagram.accuracy, diagram.confidence

    def draw(figure: Any) -> None:
        ax = add_axes(figure, 46, 14, 8, 96)
        ax.bar(diagram.centers, accuracy, width * 0.9, color=series_color(diagram.series), linewidth=0)
        low, high = np.minimum(accuracy, confidence), np.maximum(accuracy, confidence)
        over, under = confidence > accuracy, confidence < accuracy
        for mask, hatch in ((over, "////"), (under, "\\\\\\\\")):
            if mask.any():
                ax.bar(
                    diagram.centers[mask],
                    (high - low)[mask],
                    width * 0.9,
                    low[mask],
                    facecolor="none",
                    edgecolor=INK,
                    hatch=hatch,
                    linewidth=0.8,
                )
        ax.plot([0, 100], [0, 100], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        ax.set_xlim(0, 100)
        ax.set_ylim(0, 100)
        ax.set_ylabel("accuracy, %")
        ax.tick_params(labelbottom=False)
        ax.grid()
        below = add_axes(figure, 46, 14, 224, 40)
        below.bar(centers, diagram.shares, width * 0.9, color=MUTED, linewidth=0)
        below.set_xlim(0, 100)
        below.set_yticks([0, int(np.ceil(max(diagram.shares)))])
        below.set_ylabel("images, %", fontsize=9)
        below.set_xlabel("confidence, %")

    return draw_svg(name, diagram.title, 245, 304, draw)


def draw_scatter(chart: ScatterChart, name: str) -> Html:
    """Draw points, with lines to their names in a column at the right."""
    points = chart.points
    names = [shorten(point.name, 34) for point in points]
    right = 40 + _CHARACTER * max(map(len, names))
    height = max(300.0, 70 + 17.0 * len(points))
    width = 340 + right

    def draw(figure: Any) -> None:
        ax = add_axes(figure, 52, right, 10, 44)
        for point in points:
            color = series_color(point.series)
            ax.errorbar(point.x, point.y, point.spread or None, color=color, linewidth=1.2)
            ax.plot(point.x, point.y, marker_of(point.marker), color=color, markersize=8)
        low, high = _find_limits([value for p in points for value in (p.y - p.spread, p.y + p.spread)], 0.15)
        ax.set_ylim(low, high)
        ax.set_xlim(0, 1.1 * max(point.x for point in points) or 1)
        order = sorted(range(len(points)), key=lambda index: points[index].y)
        heights = separate_heights([(points[i].y - low) / (high - low) for i in order], 16 / (height - 54))
        for index, height_of_name in zip(order, heights, strict=True):
            ax.annotate(
                names[index],
                (points[index].x, points[index].y),
                (1.05, height_of_name),
                textcoords="axes fraction",
                va="center",
                arrowprops={"arrowstyle": "-", "color": MUTED, "linewidth": 0.6, "relpos": (0, 0.5)},
            )
        ax.grid()
        ax.locator_params(nbins=6)
        ax.set_xlabel(chart.x_axis)
        ax.set_ylabel(chart.y_axis)

    return draw_svg(name, chart.title, width, height, draw)


def draw_stream(chart: StreamChart, name: str, *, wide: bool = False) -> Html:
    """Draw curves over the stream, and where domains begin; a wide chart has their names too."""
    turned = wide and not _fit_side_by_side(chart.spans, 816)
    longest = max((len(shorten(span.name, 22)) for span in chart.spans), default=0) if turned else 0
    top = (10 + 0.75 * _CHARACTER * longest) if turned else 24 if wide else 10

    def draw(figure: Any) -> None:
        ax = add_axes(figure, 56, 28 + 0.4 * _CHARACTER * longest, top, 44)
        for index, curve in chart.curves:
            _draw_curve(ax, curve.images, curve.values, index)
        for span in chart.spans:
            ax.axvline(span.start, color=GRID, linewidth=1, zorder=0.5)
            if wide:
                _draw_name(ax, span, turned)
        end = chart.spans[-1].end if chart.spans else max(curve.images[-1] for _, curve in chart.curves)
        ax.set_xlim(0, 1.008 * end)
        _scale_vertically(ax, np.concatenate([curve.values for _, curve in chart.curves]))
        ax.grid(axis="y")
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        ax.locator_params(axis="x", nbins=8 if wide else 4)
        ax.set_xlabel("images seen")
        ax.set_ylabel(shorten(chart.axis))

    width, height = (900, 250) if wide else (335, 200)
    return draw_svg(name, chart.title, width, height + top, draw, wide=wide)


def _draw_name(ax: Any, span: Span, turned: bool) -> None:
    """Write the name of a stretch above it."""
    ax.text(
        (span.start + span.end) / 2,
        1.02,
        shorten(span.name.replace("_", " "), 22),
        transform=ax.get_xaxis_transform(),
        rotation=45 if turned else 0,
        rotation_mode="anchor",
        ha="left" if turned else "center",
        fontsize=10,
    )


def draw_learning(chart: LearningChart, name: str) -> Html:
    """Draw the loss of every tuning over the calls: its mean over the seeds, and each seed as a thin line."""

    def draw(figure: Any) -> None:
        ax = add_axes(figure, 56, 28, 10, 44)
        for curve in chart.curves:
            for seed in curve.seeds:
                ax.plot(seed.images, seed.values, color=series_color(curve.series), linewidth=0.9, alpha=0.5)
            _draw_curve(ax, curve.mean.images, curve.mean.values, curve.series)
        ax.set_xlim(0, 1.008 * max(curve.mean.images[-1] for curve in chart.curves))
        curves = [curve for learning in chart.curves for curve in (learning.mean, *learning.seeds)]
        _scale_vertically(ax, np.concatenate([curve.values for curve in curves]))
        ax.grid(axis="y")
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        ax.locator_params(axis="x", nbins=8)
        ax.set_xlabel("calls: batches of images under one context")
        ax.set_ylabel("cross-entropy, nats")

    return draw_svg(name, chart.title, 900, 300, draw, wide=True)


def draw_steps(chart: StepChart, name: str) -> Html:
    """Draw accuracies over a few steps, such as rounds or severities."""

    def draw(figure: Any) -> None:
        ax = add_axes(figure, 56, 14, 10, 44)
        for index, values in enumerate(chart.values):
            _draw_curve(ax, np.arange(len(values), dtype=np.float64), np.array(values), index)
        _scale_vertically(ax, np.array([value for values in chart.values for value in values]))
        ax.set_xticks(range(len(chart.ticks)), chart.ticks)
        ax.grid(axis="y")
        ax.set_xlabel(chart.axis)
        ax.set_ylabel("accuracy, %")

    return draw_svg(name, chart.title, 420, 250, draw)


def separate_heights(heights: Sequence[float], distance: float) -> list[float]:
    """Return ascending heights in 0..1, moved as little as necessary to be a distance apart."""
    placed: list[float] = []
    for height in heights:
        placed.append(max(height, placed[-1] + distance) if placed else max(height, 0.0))
    ceiling = 1.0
    for index in range(len(placed) - 1, -1, -1):
        placed[index] = min(placed[index], ceiling)
        ceiling = placed[index] - distance
    return placed


def _fit_side_by_side(spans: Sequence[Span], width: float) -> bool:
    """Return true if every span is wide enough for its name."""
    scale = width / max(1, spans[-1].end) if spans else 0.0
    return all(_CHARACTER * (len(span.name) + 1) < scale * (span.end - span.start) for span in spans)


def _draw_curve(ax: Any, x: Floats, y: Floats, index: int) -> None:
    shape = {"marker": "o", "markersize": 3.5} if len(x) <= 60 else _mark_isolated(y)
    ax.plot(x, y, color=series_color(index), linestyle=dash_of(index), **shape)


def _mark_isolated(y: Floats) -> dict[str, Any]:
    """Return markers for points between gaps, which no line passes through."""
    gap = np.isnan(y)
    before, after = np.append(True, gap[:-1]), np.append(gap[1:], True)
    isolated = np.flatnonzero(~gap & before & after)
    return {"marker": "o", "markersize": 2.5, "markevery": isolated.tolist()} if len(isolated) else {}


def _scale_vertically(ax: Any, values: Floats) -> None:
    """Set a linear scale around the values, or a logarithmic one if they are positive and far apart."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    values = values[np.isfinite(values)]
    if values.min() > 0 and values.max() / values.min() > 50:
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.yaxis.set_minor_formatter(NullFormatter())
    else:
        ax.set_ylim(_find_limits(values.tolist(), 0.06))


def _find_limits(values: Sequence[float], margin: float) -> tuple[float, float]:
    low, high = min(values), max(values)
    extra = margin * (high - low) or abs(high) * 0.05 or 1.0
    return low - extra, high + extra
