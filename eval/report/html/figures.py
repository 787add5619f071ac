"""The charts of a page, with titles and explanations."""

from __future__ import annotations

from collections.abc import Sequence

from ...results.average import CONFIDENCE
from ..digest import explanations as words
from ..digest import groups
from ..digest import stream_curves as stream
from ..digest.groups import Group
from ..digest.plain_text import shorten
from ..digest.sources import Source
from . import charts
from .charts import Bar, Point
from .elements import figure, gallery, legend
from .markup import Html, element, join


def steps(source: Source, shown_groups: Sequence[Group], prefix: str, title: str) -> Html:
    """Draw accuracy by severity or by round."""
    lines = [
        (index, [100 * group.averages[label].accuracy for group in shown_groups])
        for index, label in enumerate(source.labels)
    ]
    name = f"Mean accuracy by {title}"
    chart = charts.steps(f"{prefix}-{title}", name, lines, [group.name for group in shown_groups], title)
    return join(legend(source.labels), gallery([(name, chart)]))


def gains(source: Source, prefix: str) -> Html:
    """Draw the gain of each method over the first, per domain; needs two methods."""
    shown_groups, (first, *others) = groups.by_domain(source.results), source.labels
    rows = {label: [_make_bar(group, label) for group in shown_groups] for label in others}
    all_bars = [bar for bars in rows.values() for bar in bars]
    low = min(0.0, *(bar.value - bar.reach for bar in all_bars))
    high = max(0.0, *(bar.value + bar.reach for bar in all_bars))
    margin = 0.04 * (high - low) or 1.0
    drawn = []
    for index, (label, bars) in enumerate(rows.items(), 1):
        text = f"Gain of {label} over {first} per domain"
        limits = (low - margin, high + margin)
        drawn.append((label, charts.bars(f"{prefix}-gain-{index}", text, bars, limits, index)))
    return join(
        element("h2", f"Gain over {first}"),
        gallery(drawn),
        element("p", words.GAINS.format(first=first), class_="quiet"),
    )


def _make_bar(group: Group, label: str) -> Bar:
    values = group.averages[label]
    assert values.gain is not None and values.gain_error is not None, "the first method has no bar"
    reach = CONFIDENCE * values.gain_error
    return Bar(group.name, 100 * values.gain, 100 * reach, bool(values.gain_is_noise), group.kind)


def along_the_stream(source: Source, prefix: str) -> Html:
    """Draw running accuracy, running gain, and the diagnostics of the methods."""
    runs, (first, *others) = source.results.runs, source.labels
    curves = [stream.accuracy(runs, label) for label in source.labels]
    lines = [(index, stream.Line(line.images, 100 * line.values)) for index, (line, _) in enumerate(curves)]
    spans = stream.spans(max(runs, key=lambda run: run.images), source.results.protocol)
    title = "Running accuracy over the stream"
    chart = charts.over_stream(f"{prefix}-stream", title, lines, spans, "accuracy, %", wide=True)
    note = words.running(source, max(seeds for _, seeds in curves))
    content = [element("h2", "Along the stream"), legend(source.labels), figure(chart, note, title)]
    if others:
        base = lines[0][1].values
        gain_curves = [(index, stream.Line(line.images, line.values - base)) for index, line in lines[1:]]
        title = f"Running gain over {first}"
        chart = charts.over_stream(f"{prefix}-ahead", title, gain_curves, spans, "gain, points", wide=True)
        content.append(figure(chart, f"Difference to the running accuracy of {first}.", title))
    return join(*content, *_draw_diagnostics(source, prefix))


def _draw_diagnostics(source: Source, prefix: str) -> list[Html]:
    run = source.results.runs[0]
    spans = stream.spans(run, source.results.protocol)
    drawn: list[tuple[str, Html]] = []
    for name in stream.diagnostics(run):
        curves = [(index, stream.diagnostic(run, label, name)) for index, label in enumerate(source.labels)]
        lines = [(index, line) for index, line in curves if line is not None]
        title = f"{name} over the stream: {', '.join(source.labels[index] for index, _ in lines)}"
        chart = charts.over_stream(f"{prefix}-said-{len(drawn)}", title, lines, spans, name)
        drawn.append((name, chart))
    driving = [entry for entry in drawn if entry[0] in stream.DRIVING]
    secondary = [entry for entry in drawn if entry[0] not in stream.DRIVING]
    content = [gallery(driving)] if driving else []
    if secondary:
        names = f"More diagnostics: {', '.join(name for name, _ in secondary)}"
        content.append(element("details", element("summary", names), gallery(secondary)))
    return [*content, element("p", f"From the stream of seed {run.seed}.", class_="quiet")] if content else []


def reliability(source: Source, prefix: str) -> Html:
    """Draw a reliability diagram per method."""
    drawn = []
    for index, label in enumerate(source.labels):
        pool = groups.pooled(source.results, label)
        error = f"ECE {100 * pool.ece:.2f} %"
        title = join(label, element("span", f" · {error}", class_="quiet"))
        chart = charts.reliability(f"{prefix}-bins-{index}", f"Reliability of {label}, {error}", pool, index)
        drawn.append((title, chart))
    return join(element("h2", "Calibration"), gallery(drawn), element("p", words.CALIBRATION, class_="quiet"))


def speed(sources: Sequence[Source], name: str) -> Html:
    """Draw accuracy against time per image, with a marker per results file."""
    labels = list(dict.fromkeys(label for source in sources for label in source.labels))
    points = []
    for marker, source in enumerate(sources):
        for label, values in groups.overall(source.results).items():
            rate, spread = values.images_per_second, 100 * (values.accuracy_std or 0.0)
            text = f"{shorten(label, 16)}, {shorten(source.name, 16)}" if len(sources) > 1 else label
            series = (labels.index(label), marker)
            if rate:
                points.append(Point(text, 1000 / rate, 100 * values.accuracy, spread, *series))
    if not points:
        return element("p", "No time was measured.")
    title = "Accuracy against time per image"
    chart = charts.scatter(name, title, points, ("milliseconds per image", "accuracy, %"))
    note = f"{words.SPEED} {words.SPEED_OF_RUNS}" if len(sources) > 1 else words.SPEED
    return figure(chart, note, title)
