"""The part of a page about one results file."""

from __future__ import annotations

from ..digest.breakdown import Breakdown
from ..digest.provenance import MethodOptions, Provenance
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
    return join(
        element("p", run.protocol, class_="quiet"),
        *map(warning, run.warnings),
        element("p", run.headline, class_="lead"),
        table(run.summary),
        element("h2", "Domains"),
        table(run.domains),
        table(run.macro_f1) if run.macro_f1 else "",
        _render_breakdown(run.severities, run, prefix) if run.severities else "",
        _render_breakdown(run.rounds, run, prefix) if run.rounds else "",
        figures.render_gains(run.gains, prefix) if run.gains else "",
        figures.render_stream(run.stream, run.labels, prefix),
        figures.render_reliability(run.reliability, prefix),
        element("h2", "Accuracy and time"),
        figures.render_speed(run.speed, f"{prefix}-speed"),
        _render_provenance(run.provenance),
    )


def _render_breakdown(breakdown: Breakdown, run: RunDigest, prefix: str) -> Html:
    details = element("details", element("summary", breakdown.details_title), *map(table, breakdown.details))
    return join(
        element("h2", breakdown.title),
        figures.render_steps(breakdown.chart, run.labels, prefix),
        table(breakdown.table),
        details if breakdown.details else "",
    )


def _render_provenance(provenance: Provenance) -> Html:
    return join(
        element("h2", "How it was made"),
        element("ul", *(element("li", sentence) for sentence in provenance.protocol), class_="plain"),
        element("h3", "Methods and their options"),
        *map(render_options, provenance.methods),
        element("h3", "Data"),
        list_table(provenance.data),
        element("h3", "Model, program and machine"),
        element("div", *map(fact_table, provenance.fact_sheets), class_="columns"),
    )


def render_options(method: MethodOptions) -> Html:
    """Return the options of a method, folded."""
    title = join(method.label, ": ", element("code", method.method), f", {method.summary}")
    if method.table is None:
        return element("p", title)
    return element("details", element("summary", title), list_table(method.table))
