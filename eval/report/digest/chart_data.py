"""The charts of a report as plain numbers, which a renderer draws."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .groups import Kind

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Bar:
    """A difference in points of accuracy with its confidence interval.

    Attributes:
        name: name of the group that the difference is of.
        value: the difference.
        reach: half the width of the interval.
        noise: true if the interval contains 0.
        kind: kind of the group.
    """

    name: str
    value: float
    reach: float
    noise: bool
    kind: Kind


@dataclass(frozen=True)
class BarChart:
    """Horizontal bars around 0.

    Attributes:
        method: label of the method that the bars are of.
        title: description of the chart.
        series: index of the method, which decides on its colour.
        bars: the bars, from top to bottom.
        limits: range of the axis, in points of accuracy.
    """

    method: str
    title: str
    series: int
    bars: tuple[Bar, ...]
    limits: tuple[float, float]


@dataclass(frozen=True)
class StepChart:
    """Accuracies over a few steps, such as rounds or severities.

    Attributes:
        title: description of the chart.
        axis: label of the horizontal axis.
        ticks: names of the steps.
        values: accuracies in percent, by method and step.
    """

    title: str
    axis: str
    ticks: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Curve:
    """Values over the stream.

    Attributes:
        images: number of images up to each point, `[N]`.
        values: value at each point, `[N]`; NaN is a gap.
    """

    images: Floats
    values: Floats


@dataclass(frozen=True)
class Span:
    """A named stretch of the stream, from image `start` to image `end`."""

    start: int
    end: int
    name: str


@dataclass(frozen=True)
class StreamChart:
    """Curves over the stream.

    Attributes:
        title: description of the chart.
        axis: label of the vertical axis.
        curves: the curves with the indices of their methods.
        spans: named stretches of the stream, or none.
        note: explanation of the chart, or an empty text.
    """

    title: str
    axis: str
    curves: tuple[tuple[int, Curve], ...]
    spans: tuple[Span, ...]
    note: str = ""


@dataclass(frozen=True)
class ReliabilityDiagram:
    """Accuracy against confidence in bins, all in percent.

    Attributes:
        method: label of the method.
        error: expected calibration error, as text.
        title: description of the diagram.
        series: index of the method.
        centers, accuracy, confidence: center, accuracy and mean confidence of each bin that has images.
        shares: share of the images in each bin, `[15]`.
    """

    method: str
    error: str
    title: str
    series: int
    centers: Floats
    accuracy: Floats
    confidence: Floats
    shares: Floats


@dataclass(frozen=True)
class Point:
    """A point of a scatter chart.

    Attributes:
        name: text beside the point.
        x, y: position.
        spread: standard deviation of `y`.
        series: index that decides on the colour.
        marker: index that decides on the shape.
    """

    name: str
    x: float
    y: float
    spread: float = 0.0
    series: int = 0
    marker: int = 0


@dataclass(frozen=True)
class ScatterChart:
    """Named points.

    Attributes:
        title: description of the chart.
        x_axis, y_axis: labels of the axes.
        points: the points; none if there is nothing to show.
        note: explanation of the chart.
    """

    title: str
    x_axis: str
    y_axis: str
    points: tuple[Point, ...]
    note: str
