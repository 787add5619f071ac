"""The charts of a page, each with what it takes from the results and what to know about it."""

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


def steps(source: Source, found: Sequence[Group], prefix: str, title: str) -> Html:
    """Accuracy by severity or by round, as the title says."""
    lines = [
        (place, [100 * group.averages[label]["accuracy"] for group in found])
        for place, label in enumerate(source.labels)
    ]
    name = f"Mean accuracy by {title}"
    chart = charts.steps(f"{prefix}-{title}", name, lines, [group.name for group in found], title)
    return join(legend(source.labels), gallery([(name, chart)]))


def gains(source: Source, prefix: str) -> Html:
    """What each method gains over the first, per domain; for two methods or more."""
    found, (first, *others) = groups.by_domain(source.results), source.labels
    rows = {label: [_bar(group, label) for group in found] for label in others}
    every = [bar for bars in rows.values() for bar in bars]
    low = min(0.0, *(bar.value - bar.reach for bar in every))
    high = max(0.0, *(bar.value + bar.reach for bar in every))
    margin = 0.04 * (high - low) or 1.0
    drawn = []
    for place, (label, bars) in enumerate(rows.items(), 1):
        text = f"Gain of {label} over {first} per domain"
        limits = (low - margin, high + margin)
        drawn.append((label, charts.bars(f"{prefix}-gain-{place}", text, bars, limits, place)))
    return join(
        element("h2", f"Gain over {first}"),
        gallery(drawn),
        element("p", words.GAINS.format(first=first), class_="quiet"),
    )


def _bar(group: Group, label: str) -> Bar:
    values = group.averages[label]
    reach = CONFIDENCE * values["gain_error"]
    return Bar(group.name, 100 * values["gain"], 100 * reach, values["gain_is_noise"], group.kind)


def along_the_stream(source: Source, prefix: str) -> Html:
    """Running accuracy, what of it is gain, and what the methods said of themselves."""
    runs, (first, *others) = source.results.runs, source.labels
    found = [stream.accuracy(runs, label) for label in source.labels]
    lines = [(place, stream.Line(line.images, 100 * line.values)) for place, (line, _) in enumerate(found)]
    spans = stream.spans(max(runs, key=lambda run: run.images), source.results.protocol)
    title = "Running accuracy over the stream"
    shown = charts.over_stream(f"{prefix}-stream", title, lines, spans, "accuracy, %", wide=True)
    note = words.running(source, max(seeds for _, seeds in found))
    parts = [element("h2", "Along the stream"), legend(source.labels), figure(shown, note, title)]
    if others:
        base = lines[0][1].values
        ahead = [(place, stream.Line(line.images, line.values - base)) for place, line in lines[1:]]
        title = f"Running gain over {first}"
        shown = charts.over_stream(f"{prefix}-ahead", title, ahead, spans, "gain, points", wide=True)
        parts.append(figure(shown, f"The same, less that of {first}.", title))
    return join(*parts, *_diagnostics(source, prefix))


def _diagnostics(source: Source, prefix: str) -> list[Html]:
    run = source.results.runs[0]
    spans = stream.spans(run, source.results.protocol)
    drawn: list[tuple[str, Html]] = []
    for name in stream.diagnostics(run):
        found = [(place, stream.diagnostic(run, label, name)) for place, label in enumerate(source.labels)]
        lines = [(place, line) for place, line in found if line is not None]
        title = f"{name} over the stream: {', '.join(source.labels[place] for place, _ in lines)}"
        chart = charts.over_stream(f"{prefix}-said-{len(drawn)}", title, lines, spans, name)
        drawn.append((name, chart))
    first = [each for each in drawn if each[0] in stream.DRIVING]
    rest = [each for each in drawn if each[0] not in stream.DRIVING]
    parts = [gallery(first)] if first else []
    if rest:
        names = f"More of what methods said: {', '.join(name for name, _ in rest)}"
        parts.append(element("details", element("summary", names), gallery(rest)))
    return [*parts, element("p", f"From the stream of seed {run.seed}.", class_="quiet")] if parts else []


def reliability(source: Source, prefix: str) -> Html:
    """A reliability diagram per method."""
    drawn = []
    for place, label in enumerate(source.labels):
        pool = groups.pooled(source.results, label)
        error = f"ECE {100 * pool.ece:.2f} %"
        title = join(label, element("span", f" · {error}", class_="quiet"))
        chart = charts.reliability(f"{prefix}-bins-{place}", f"Reliability of {label}, {error}", pool, place)
        drawn.append((title, chart))
    return join(element("h2", "Calibration"), gallery(drawn), element("p", words.CALIBRATION, class_="quiet"))


def speed(sources: Sequence[Source], name: str) -> Html:
    """Accuracy against time per image; of several files each with a marker of its own."""
    labels = list(dict.fromkeys(label for source in sources for label in source.labels))
    points = []
    for marker, source in enumerate(sources):
        for label, values in groups.overall(source.results).items():
            rate, spread = values["images_per_second"], 100 * (values["accuracy_std"] or 0.0)
            text = f"{shorten(label, 16)}, {shorten(source.name, 16)}" if len(sources) > 1 else label
            place = (labels.index(label), marker)
            if rate:
                points.append(Point(text, 1000 / rate, 100 * values["accuracy"], spread, *place))
    if not points:
        return element("p", "No time was measured.")
    title = "Accuracy against time per image"
    chart = charts.scatter(name, title, points, ("milliseconds per image", "accuracy, %"))
    note = f"{words.SPEED} {words.SPEED_OF_RUNS}" if len(sources) > 1 else words.SPEED
    return figure(chart, note, title)
