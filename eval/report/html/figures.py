"""The figures of a page: charts with legends, headings and explanations."""

from __future__ import annotations

from collections.abc import Sequence

from ..digest.along_stream import AlongStream
from ..digest.chart_data import ScatterChart, StepChart, StreamChart
from ..digest.gains import Gains
from ..digest.reliability import Reliability
from . import charts
from .elements import figure, gallery, legend
from .markup import Html, element, join


def render_steps(chart: StepChart, labels: Sequence[str], prefix: str) -> Html:
    """Return the chart of accuracy by severity or by round."""
    drawing = charts.draw_steps(chart, f"{prefix}-{chart.axis}")
    return join(legend(labels), gallery([(chart.title, drawing)]))


def render_gains(gains: Gains, prefix: str) -> Html:
    """Return the section on the gain of each method over the first one."""
    drawings = [
        (chart.method, charts.draw_bars(chart, f"{prefix}-gain-{chart.series}")) for chart in gains.charts
    ]
    return join(element("h2", gains.title), gallery(drawings), element("p", gains.note, class_="quiet"))


def render_stream(stream: AlongStream, labels: Sequence[str], prefix: str) -> Html:
    """Return the section on the course of the stream."""
    content = [
        element("h2", "Along the stream"),
        legend(labels),
        _render_wide(stream.accuracy, f"{prefix}-stream"),
        _render_wide(stream.gain, f"{prefix}-ahead") if stream.gain else "",
    ]
    diagnostics = [
        (chart.axis, charts.draw_stream(chart, f"{prefix}-diagnostic-{number}"))
        for number, chart in enumerate((*stream.driving, *stream.secondary))
    ]
    driving, secondary = diagnostics[: len(stream.driving)], diagnostics[len(stream.driving) :]
    if driving:
        content.append(gallery(driving))
    if secondary:
        names = f"More diagnostics: {', '.join(name for name, _ in secondary)}"
        content.append(element("details", element("summary", names), gallery(secondary)))
    if diagnostics:
        content.append(element("p", f"Diagnostics are of seed {stream.seed}.", class_="quiet"))
    return join(*content)


def _render_wide(chart: StreamChart, name: str) -> Html:
    return figure(charts.draw_stream(chart, name, wide=True), chart.note, chart.title)


def render_reliability(reliability: Reliability, prefix: str) -> Html:
    """Return the section with a reliability diagram per method."""
    return join(element("h2", "Calibration"), render_diagrams(reliability, prefix))


def render_diagrams(reliability: Reliability, prefix: str) -> Html:
    """Return a reliability diagram per method, and their explanation."""
    drawings = [
        (
            join(diagram.method, element("span", f" · {diagram.error}", class_="quiet")),
            charts.draw_reliability(diagram, f"{prefix}-bins-{diagram.series}"),
        )
        for diagram in reliability.diagrams
    ]
    return join(gallery(drawings), element("p", reliability.note, class_="quiet"))


def render_speed(chart: ScatterChart, name: str) -> Html:
    """Return the chart of accuracy against time per image."""
    if not chart.points:
        return element("p", "No time was measured.")
    return figure(charts.draw_scatter(chart, name), chart.note, chart.title)
