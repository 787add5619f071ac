"""One results file as part of a page: tables, charts, and what it was made with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..average import CONFIDENCE
from ..protocol import Protocol
from . import charts, groups, stream, tables
from .charts import Bar, Point
from .elements import figure, gallery, legend, scrolling, table, warning
from .groups import Group
from .inputs import Source
from .manifest import manifest
from .markup import Html, element, join
from .notes import headline, warnings

_MARKS = (
    "Bold is the best at the precision shown. ~ marks what differs from {first} by no more than noise: less than"
    " twice the standard error of the difference, in which only images count that one of the two got right and"
    " the other wrong."
)
_CALIBRATION = (
    "Bars are the accuracy of the images whose confidence lies in that fifteenth; on the dashed line the two agree."
    " The gap up to the mean confidence is hatched where the model is too sure and dotted where it is not sure"
    " enough. All domains that enter the averages are pooled here, so the ECE above a diagram is not the mean over"
    " domains of the summary."
)


def section(source: Source, prefix: str) -> Html:
    """Everything about one results file.

    Args:
        source: the results.
        prefix: begins all identifiers within.
    """
    parts: list[Html] = [
        element("p", source.results.protocol.describe(), class_="quiet"),
        *map(warning, warnings(source)),
        element("p", headline(source), class_="lead"),
        table(tables.summary(source)),
        _explained(source),
        element("h3", "Domains"),
        table(tables.by_domain(source)),
        *_marks(source),
        *_several(source, prefix),
        *_gains(source, prefix),
        *_stream(source, prefix),
        element("h3", "Calibration"),
        _reliability(source, prefix),
        element("p", _CALIBRATION, class_="quiet"),
        element("h3", "Accuracy and time"),
        speed([source], f"{prefix}-speed"),
        manifest(source),
    ]
    return join(*parts)


def _explained(source: Source) -> Html:
    parts = ["Rates are means over the domains, clean images left out"]
    if len(source.results.runs) > 1:
        parts[0] += ", ± is the standard deviation over seeds"
    if len(source.labels) > 1:
        parts.append(
            f"The gain is the difference in accuracy to {source.labels[0]} in points, with its standard error"
        )
    parts.append(
        "ECE is the expected calibration error over 15 bins; NLL the negative log-likelihood of the label in nats."
        " Forwards are per batch; guarded are batches on which the guard stepped in; memory is the peak of the"
        " whole process, which all methods share"
    )
    return element("p", f"{'. '.join(parts)}.", class_="quiet")


def _marks(source: Source) -> list[Html]:
    several = len(source.labels) > 1
    return [element("p", _MARKS.format(first=source.labels[0]), class_="quiet")] if several else []


def _several(source: Source, prefix: str) -> list[Html]:
    """Severities and rounds, where there are several."""
    parts: list[Html] = []
    for title, found, content in (
        ("severity", groups.by_severity(source.results), tables.by_severity(source)),
        ("round", groups.by_round(source.results), tables.by_round(source)),
    ):
        if content is None:
            continue
        name = f"Accuracy by {title}, mean over the domains"
        parts += [element("h3", f"By {title}"), legend(source.labels)]
        parts.append(gallery([(name, _steps(source, found, f"{prefix}-{title}", title))]))
        parts.append(table(content))
    single = [(label, tables.severities_of(source, label)) for label in source.labels]
    matrices = [table(content) for _, content in single if content is not None]
    if matrices:
        name = element("summary", "Every domain at every severity, per method: top-1 accuracy, %")
        parts.append(element("details", name, *matrices))
    return parts


def _steps(source: Source, found: Sequence[Group], name: str, title: str) -> Html:
    lines = [
        (place, [100 * group.averages[label]["accuracy"] for group in found])
        for place, label in enumerate(source.labels)
    ]
    return charts.steps(name, f"Accuracy by {title}", lines, [group.name for group in found], title)


def _gains(source: Source, prefix: str) -> list[Html]:
    if len(source.labels) < 2:
        return []
    found, (first, *others) = groups.by_domain(source.results), source.labels
    rows = {label: [_bar(group, label) for group in found] for label in others}
    ends = [e for bars in rows.values() for b in bars for e in (b.value - b.reach, b.value + b.reach, 0.0)]
    margin = 0.04 * (max(ends) - min(ends)) or 1.0
    limits = (min(ends) - margin, max(ends) + margin)
    drawn = [
        (
            label,
            charts.bars(
                f"{prefix}-gain-{place}", f"Gain of {label} over {first} per domain", bars, limits, place
            ),
        )
        for place, (label, bars) in enumerate(rows.items(), 1)
    ]
    note = (
        f"Difference in accuracy to {first}; the lines are intervals of 95 % confidence. Pale bars, marked ~, are"
        " no more than noise."
    )
    return [element("h3", f"Gain over {first}"), gallery(drawn), element("p", note, class_="quiet")]


def _bar(group: Group, label: str) -> Bar:
    values = group.averages[label]
    reach = CONFIDENCE * values["gain_error"]
    return Bar(group.name, 100 * values["gain"], 100 * reach, values["gain_is_noise"], group.kind)


def _stream(source: Source, prefix: str) -> list[Html]:
    """Accuracy along the stream, and what the methods said of themselves."""
    protocol, runs = source.results.protocol, source.results.runs
    lines, seeds = [], set()
    for place, label in enumerate(source.labels):
        line, count = stream.accuracy(runs, label)
        lines.append((place, stream.Line(line.images, 100 * line.values)))
        seeds.add(count)
    spans = stream.spans(max(runs, key=lambda run: run.images), protocol)
    title = "Running accuracy over the stream"
    shown = charts.over_stream(f"{prefix}-stream", title, lines, spans, "accuracy, %", wide=True)
    note = (
        f"Accuracy over the last {stream.WINDOW} images at least, or all so far in the domain: it begins anew with"
        f" each{', as do the methods' if protocol.setting in ('reset', 'label_shift') else ', while the methods carry on'}."
    )
    if len(runs) > 1:
        note += f" Mean over {max(seeds)} seeds."
    return [
        element("h3", "Along the stream"),
        legend(source.labels),
        figure(shown, note, title),
        *_diagnostics(source, prefix),
    ]


def _diagnostics(source: Source, prefix: str) -> list[Html]:
    run = source.results.runs[0]
    spans = stream.spans(run, source.results.protocol)
    drawn = []
    for name in stream.diagnostics(run):
        found = [(place, stream.diagnostic(run, label, name)) for place, label in enumerate(source.labels)]
        lines = [(place, line) for place, line in found if line is not None]
        who = ", ".join(source.labels[place] for place, _ in lines)
        identifier = f"{prefix}-said-{len(drawn)}"
        chart = charts.over_stream(identifier, f"{name} over the stream: {who}", lines, spans, name)
        drawn.append((name, chart))
    first = [each for each in drawn if each[0] in stream.DRIVING]
    rest = [each for each in drawn if each[0] not in stream.DRIVING]
    seed = element("p", f"From the stream of seed {run.seed}.", class_="quiet")
    parts = [gallery(first), seed] if first else []
    if rest:
        names = ", ".join(name for name, _ in rest)
        parts.append(
            element("details", element("summary", f"More of what methods said: {names}"), gallery(rest))
        )
    return parts


def _reliability(source: Source, prefix: str) -> Html:
    drawn = []
    for place, label in enumerate(source.labels):
        pool = groups.pooled(source.results, label)
        text = f"Reliability of {label}, ECE {100 * pool.ece:.2f} %"
        title = join(label, element("span", f" · ECE {100 * pool.ece:.2f} %", class_="quiet"))
        drawn.append((title, charts.reliability(f"{prefix}-bins-{place}", text, pool, place)))
    return gallery(drawn)


def speed(sources: Sequence[Source], name: str) -> Html:
    """Accuracy against time per image: of several files too, each with a marker of its own."""
    labels = list(dict.fromkeys(label for source in sources for label in source.labels))
    points = []
    for marker, source in enumerate(sources):
        for label, values in groups.overall(source.results).items():
            rate = values["images_per_second"]
            text = f"{label}, {source.name}" if len(sources) > 1 else label
            if rate:
                spread = 100 * (values["accuracy_std"] or 0.0)
                place = labels.index(label)
                points.append(Point(text, 1000 / rate, 100 * values["accuracy"], spread, place, marker))
    if not points:
        return element("p", "No time was measured.")
    title = "Accuracy against time per image"
    shown = charts.scatter(name, title, points, ("milliseconds per image", "accuracy, %"))
    return figure(
        shown, "Higher and further left is better. Lines are the standard deviation over seeds.", title
    )
