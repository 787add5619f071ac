"""The section of a page about one results file: tables, charts and provenance."""

from __future__ import annotations

from ..digest import explanations as words
from ..digest import groups, tables
from ..digest.notes import headline, warnings
from ..digest.sources import Source
from . import figures
from .elements import table, warning
from .markup import Html, element, join
from .provenance import manifest


def section(source: Source, prefix: str) -> Html:
    """Return the section about one results file.

    Args:
        source: the results.
        prefix: prefix of all identifiers in the section.
    """
    has_others = len(source.labels) > 1
    marks = words.MARKS.format(first=source.labels[0])
    return join(
        element("p", source.results.protocol.describe(), class_="quiet"),
        *map(warning, warnings(source)),
        element("p", headline(source), class_="lead"),
        table(tables.summary(source)),
        element("p", words.summary(source), class_="quiet"),
        element("h2", "Domains"),
        table(tables.by_domain(source)),
        element("p", marks, class_="quiet") if has_others else "",
        _by_severity(source, prefix),
        _by_round(source, prefix),
        figures.gains(source, prefix) if has_others else "",
        figures.along_the_stream(source, prefix),
        figures.reliability(source, prefix),
        element("h2", "Accuracy and time"),
        figures.speed([source], f"{prefix}-speed"),
        manifest(source),
    )


def _by_severity(source: Source, prefix: str) -> Html:
    content = tables.by_severity(source)
    if content is None:
        return Html()
    per_method = [tables.severities_of(source, label) for label in source.labels]
    title = element("summary", "Every domain at every severity, per method: top-1 accuracy, %")
    return join(
        element("h2", "By severity"),
        figures.steps(source, groups.by_severity(source.results), prefix, "severity"),
        table(content),
        element(
            "details",
            title,
            *(table(content) for content in per_method if content is not None),
        ),
    )


def _by_round(source: Source, prefix: str) -> Html:
    content = tables.by_round(source)
    if content is None:
        return Html()
    return join(
        element("h2", "By round"),
        figures.steps(source, groups.by_round(source.results), prefix, "round"),
        table(content),
    )
