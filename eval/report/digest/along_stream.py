"""The section on the course of the stream: running accuracy, running gain and diagnostics."""

from __future__ import annotations

from dataclasses import dataclass

from .chart_data import Curve, StreamChart
from .explanations import explain_running_accuracy
from .sources import Source
from .stream_curves import average_running_accuracy, list_diagnostics, make_diagnostic_curve, name_spans

_DRIVING = ("epsilon", "rate", "loss")  # diagnostics that drive the adaptation


@dataclass(frozen=True)
class AlongStream:
    """The course of the stream.

    Attributes:
        accuracy: running accuracy of every method.
        gain: running gain over the first method; None if there is only one.
        driving: charts of the diagnostics that drive the adaptation.
        secondary: charts of all other diagnostics.
        seed: the seed that the diagnostics are of.
    """

    accuracy: StreamChart
    gain: StreamChart | None
    driving: tuple[StreamChart, ...]
    secondary: tuple[StreamChart, ...]
    seed: int


def digest_stream(source: Source) -> AlongStream:
    """Return the section on the course of the stream."""
    runs, labels = source.results.runs, source.labels
    averages = [average_running_accuracy(runs, label) for label in labels]
    curves = [Curve(curve.images, 100 * curve.values) for curve, _ in averages]
    spans = name_spans(max(runs, key=lambda run: run.images), source.results.protocol)
    note = explain_running_accuracy(source, max(seeds for _, seeds in averages))
    accuracy = StreamChart(
        "Running accuracy over the stream", "accuracy, %", tuple(enumerate(curves)), spans, note
    )
    gain = None
    if len(labels) > 1:
        differences = [Curve(curve.images, curve.values - curves[0].values) for curve in curves[1:]]
        title, note = f"Running gain over {labels[0]}", f"Difference to the running accuracy of {labels[0]}."
        gain = StreamChart(title, "gain, points", tuple(enumerate(differences, 1)), spans, note)
    diagnostics = {name: _chart_diagnostic(source, name) for name in list_diagnostics(runs[0])}
    return AlongStream(
        accuracy,
        gain,
        driving=tuple(diagnostics[name] for name in _DRIVING if name in diagnostics),
        secondary=tuple(chart for name, chart in diagnostics.items() if name not in _DRIVING),
        seed=runs[0].seed,
    )


def _chart_diagnostic(source: Source, name: str) -> StreamChart:
    """Return the chart of a diagnostic in the first run, for the methods that reported it."""
    run = source.results.runs[0]
    curves = {index: make_diagnostic_curve(run, label, name) for index, label in enumerate(source.labels)}
    reported = tuple((index, curve) for index, curve in curves.items() if curve is not None)
    title = f"{name} over the stream: {', '.join(source.labels[index] for index, _ in reported)}"
    return StreamChart(title, name, reported, name_spans(run, source.results.protocol))
