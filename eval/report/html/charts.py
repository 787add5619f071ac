"""The charts of a report: bars, reliability diagrams, points and lines, each drawn from plain numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...results.metrics import ECE_BINS, Tally
from ..digest.groups import Kind
from ..digest.plain_text import shorten
from ..digest.stream_curves import Floats, Line, Span
from .markup import Html
from .svg import GRID, INK, MUTED, axes, colour, dash, marker, picture

_LETTER = 6.3  # pixels, about
_ROW = 20  # pixels of a bar with its surroundings


@dataclass(frozen=True)
class Bar:
    """A difference in points with its interval of confidence, and whether that holds 0."""

    name: str
    value: float
    reach: float
    noise: bool
    kind: Kind


@dataclass(frozen=True)
class Point:
    """A method in a scatter: name, position, how far y spreads, and the places of its colour and marker."""

    name: str
    x: float
    y: float
    spread: float = 0.0
    colour: int = 0
    marker: int = 0


def bars(name: str, label: str, rows: Sequence[Bar], limits: tuple[float, float], index: int) -> Html:
    """Horizontal bars around 0, pale where they are noise."""
    width, left = 330, 14 + _LETTER * max(len(shorten(row.name, 22)) for row in rows)
    heights = np.cumsum([0.0, *(1.0 if row.kind == "part" else 1.3 for row in rows[1:])])

    def draw(figure: Any) -> None:
        ax = axes(figure, left, 58, 4, 38)
        numbers = 1 + 42 / (width - left - 58)  # where they end, beside the axes
        for at, row in zip(heights, rows, strict=True):
            strength = 0.4 if row.noise else 1.0
            ax.barh(at, row.value, 0.66, color=colour(index), alpha=strength, linewidth=0)
            ax.plot([row.value - row.reach, row.value + row.reach], [at, at], color=INK, linewidth=1)
            text = f"{row.value:+.1f}".replace("-", "−")
            ax.text(numbers, at, text, transform=ax.get_yaxis_transform(), ha="right", va="center")
            ax.text(numbers + 0.02, at, "~" * row.noise, transform=ax.get_yaxis_transform(), va="center")
        ax.axvline(0, color=MUTED, linewidth=1)
        ax.set_xlim(limits)
        ax.set_ylim(heights[-1] + 0.6, -0.6)
        names = [shorten(row.name.replace("_", " "), 22) for row in rows]
        ax.set_yticks(heights, names)
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
        ax.grid(axis="x")
        ax.set_xlabel("points of accuracy")

    return picture(name, label, width, 42 + _ROW * (float(heights[-1]) + 1.2), draw)


def reliability(name: str, label: str, pool: Tally, index: int) -> Html:
    """Accuracy against confidence in bins, the gap between them, and how many images each bin has."""
    edges = np.linspace(0, 100, ECE_BINS + 1)
    width = 100 / ECE_BINS
    filled = pool.bin_images > 0
    accuracy = 100 * pool.bin_correct[filled] / pool.bin_images[filled]
    confidence = 100 * pool.bin_confidence[filled] / pool.bin_images[filled]
    centres = (edges[:-1] + width / 2)[filled]

    def draw(figure: Any) -> None:
        ax = axes(figure, 46, 14, 8, 96)
        ax.bar(centres, accuracy, width * 0.9, color=colour(index), linewidth=0)
        low, high = np.minimum(accuracy, confidence), np.maximum(accuracy, confidence)
        over, under = confidence > accuracy, confidence < accuracy
        for mask, hatch in ((over, "////"), (under, "\\\\\\\\")):
            if mask.any():
                ax.bar(
                    centres[mask],
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
        below = axes(figure, 46, 14, 224, 40)
        shares = 100 * pool.bin_images / max(1.0, float(pool.bin_images.sum()))
        below.bar(edges[:-1] + width / 2, shares, width * 0.9, color=MUTED, linewidth=0)
        below.set_xlim(0, 100)
        below.set_yticks([0, int(np.ceil(max(shares)))])
        below.set_ylabel("images, %", fontsize=9)
        below.set_xlabel("confidence, %")

    return picture(name, label, 245, 304, draw)


def scatter(name: str, label: str, points: Sequence[Point], labels: tuple[str, str]) -> Html:
    """Points with their names in a column at the right, lines leading there."""
    names = [shorten(point.name, 34) for point in points]
    right = 40 + _LETTER * max(map(len, names))
    height = max(300.0, 70 + 17.0 * len(points))
    width = 340 + right

    def draw(figure: Any) -> None:
        ax = axes(figure, 52, right, 10, 44)
        for point in points:
            series_colour = colour(point.colour)
            ax.errorbar(point.x, point.y, point.spread or None, color=series_colour, linewidth=1.2)
            ax.plot(point.x, point.y, marker(point.marker), color=series_colour, markersize=8)
        low, high = _limits([value for p in points for value in (p.y - p.spread, p.y + p.spread)], 0.15)
        ax.set_ylim(low, high)
        ax.set_xlim(0, 1.1 * max(point.x for point in points) or 1)
        order = sorted(range(len(points)), key=lambda index: points[index].y)
        heights = spread_out([(points[i].y - low) / (high - low) for i in order], 16 / (height - 54))
        for index, at in zip(order, heights, strict=True):
            ax.annotate(
                names[index],
                (points[index].x, points[index].y),
                (1.05, at),
                textcoords="axes fraction",
                va="center",
                arrowprops={"arrowstyle": "-", "color": MUTED, "linewidth": 0.6, "relpos": (0, 0.5)},
            )
        ax.grid()
        ax.locator_params(nbins=6)
        ax.set_xlabel(labels[0])
        ax.set_ylabel(labels[1])

    return picture(name, label, width, height, draw)


def over_stream(
    name: str,
    label: str,
    lines: Sequence[tuple[int, Line]],
    spans: Sequence[Span],
    ylabel: str,
    *,
    wide: bool = False,
) -> Html:
    """Lines over the images seen, each with the place of its colour; domains, if wide with their names."""
    turned = wide and not _side_by_side(spans, 816)
    longest = max((len(shorten(span.name, 22)) for span in spans), default=0) if turned else 0
    top = (10 + 0.75 * _LETTER * longest) if turned else 24 if wide else 10

    def draw(figure: Any) -> None:
        ax = axes(figure, 56, 28 + 0.4 * _LETTER * longest, top, 44)
        for index, line in lines:
            _line(ax, line.images, line.values, index)
        end = spans[-1].end if spans else max(line.images[-1] for _, line in lines)
        for span in spans:
            ax.axvline(span.start, color=GRID, linewidth=1, zorder=0.5)
            if wide:
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
        ax.set_xlim(0, 1.008 * end)
        _scale(ax, np.concatenate([line.values for _, line in lines]))
        ax.grid(axis="y")
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        ax.locator_params(axis="x", nbins=8 if wide else 4)
        ax.set_xlabel("images seen")
        ax.set_ylabel(shorten(ylabel))

    return picture(name, label, 900 if wide else 335, (250 if wide else 200) + top, draw, wide=wide)


def steps(
    name: str, label: str, lines: Sequence[tuple[int, Sequence[float]]], ticks: Sequence[str], xlabel: str
) -> Html:
    """Accuracies in percent over a few steps, such as rounds or severities."""

    def draw(figure: Any) -> None:
        ax = axes(figure, 56, 14, 10, 44)
        for index, values in lines:
            _line(ax, np.arange(len(values), dtype=np.float64), np.array(values), index)
        _scale(ax, np.array([value for _, values in lines for value in values]))
        ax.set_xticks(range(len(ticks)), ticks)
        ax.grid(axis="y")
        ax.set_xlabel(xlabel)
        ax.set_ylabel("accuracy, %")

    return picture(name, label, 420, 250, draw)


def spread_out(heights: Sequence[float], distance: float) -> list[float]:
    """Ascending heights in 0..1, moved so that neighbours are a distance apart and as few move as need be."""
    placed: list[float] = []
    for height in heights:
        placed.append(max(height, placed[-1] + distance) if placed else max(height, 0.0))
    ceiling = 1.0
    for index in range(len(placed) - 1, -1, -1):
        placed[index] = min(placed[index], ceiling)
        ceiling = placed[index] - distance
    return placed


def _side_by_side(spans: Sequence[Span], width: float) -> bool:
    """Whether the names of all spans have room above them."""
    scale = width / max(1, spans[-1].end) if spans else 0.0
    return all(_LETTER * (len(span.name) + 1) < scale * (span.end - span.start) for span in spans)


def _line(ax: Any, x: Floats, y: Floats, index: int) -> None:
    shape = {"marker": "o", "markersize": 3.5} if len(x) <= 60 else _lonely(y)
    ax.plot(x, y, color=colour(index), linestyle=dash(index), **shape)


def _lonely(y: Floats) -> dict[str, Any]:
    """Markers for points between gaps, which no line goes through."""
    gap = np.isnan(y)
    before, after = np.append(True, gap[:-1]), np.append(gap[1:], True)
    alone = np.flatnonzero(~gap & before & after)
    return {"marker": "o", "markersize": 2.5, "markevery": alone.tolist()} if len(alone) else {}


def _scale(ax: Any, values: Floats) -> None:
    """A linear scale around the values, or a logarithmic one where they are positive and far apart."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    values = values[np.isfinite(values)]
    if values.min() > 0 and values.max() / values.min() > 50:
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.yaxis.set_minor_formatter(NullFormatter())
    else:
        ax.set_ylim(_limits(values.tolist(), 0.06))


def _limits(values: Sequence[float], margin: float) -> tuple[float, float]:
    low, high = min(values), max(values)
    extra = margin * (high - low) or abs(high) * 0.05 or 1.0
    return low - extra, high + extra
