"""The part of a page about one results file."""

from __future__ import annotations

from collections.abc import Sequence

from ..digest.breakdown import Breakdown
from ..digest.provenance import FactSheet, MethodOptions
from ..digest.report_digest import RunDigest
from . import figures
from .elements import fact_table, list_table, table, warning
from .markup import Html, element, join


def render_run(run: RunDigest, prefix: str) -> Html:
    """Return the part about one results file.

    Args:
        run: the results.
        prefix: prefix of all identifiers in this part.
    """
    provenance = run.provenance
    return join(
        element("p", run.protocol, class_="quiet"),
        *map(warning, run.warnings),
        element("p", run.headline, class_="lead"),
        table(run.summary),
        element("h2", "Domains"),
        table(run.domains),
        table(run.published) if run.published else "",
        table(run.macro_f1) if run.macro_f1 else "",
        _render_breakdown(run.severities, run, prefix) if run.severities else "",
        _render_breakdown(run.rounds, run, prefix) if run.rounds else "",
        figures.render_gains(run.gains, prefix) if run.gains else "",
        figures.render_stream(run.stream, run.labels, prefix),
        figures.render_reliability(run.reliability, prefix),
        element("h2", "Accuracy and time"),
        figures.render_speed(run.speed, f"{prefix}-speed"),
        render_provenance(
            provenance.protocol,
            provenance.methods,
            join(element("h3", "Data"), list_table(provenance.data)),
            provenance.fact_sheets,
        ),
    )


def _render_breakdown(breakdown: Breakdown, run: RunDigest, prefix: str) -> Html:
    details = element("details", element("summary", breakdown.details_title), *map(table, breakdown.details))
    return join(
        element("h2", breakdown.title),
        figures.render_steps(breakdown.chart, run.labels, prefix),
        table(breakdown.table),
        details if breakdown.details else "",
    )


def render_provenance(
    sentences: Sequence[str], methods: Sequence[MethodOptions], files: Html, fact_sheets: Sequence[FactSheet]
) -> Html:
    """Return how results were made.

    Args:
        sentences: on the protocol.
        methods: with their options.
        files: data or runs, with a heading.
        fact_sheets: about model, program and machine.
    """
    return join(
        element("h2", "How it was made"),
        element("ul", *(element("li", sentence) for sentence in sentences), class_="plain"),
        element("h3", "Methods and their options"),
        *map(render_options, methods),
        files,
        element("h3", "Model, program and machine"),
        element("div", *map(fact_table, fact_sheets), class_="columns"),
    )


def render_options(method: MethodOptions) -> Html:
    """Return the options of a method, folded."""
    title = join(method.label, ": ", element("code", method.method), f", {method.summary}")
    if method.table is None:
        return element("p", title)
    return element("details", element("summary", title), list_table(method.table))
