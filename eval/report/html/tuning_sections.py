"""The part of a page about tunings."""

from __future__ import annotations

from collections.abc import Sequence

from ..digest.learning_charts import LearningChart
from ..digest.tuning_digest import SetDigest, TuningsDigest
from . import charts
from .elements import figure, legend, list_table, table, warning
from .figures import render_diagrams
from .markup import Html, element, join
from .sections import render_provenance


def render_tunings(tunings: TuningsDigest, prefix: str) -> Html:
    """Return the part about tunings.

    Args:
        tunings: the tunings.
        prefix: prefix of all identifiers in this part.
    """
    provenance = tunings.provenance
    overview = join(element("h2", "Data sets side by side"), *map(table, tunings.side_by_side))
    halves = join(element("h2", "Base to new"), *map(table, tunings.base_to_new))
    return join(
        *map(warning, tunings.warnings),
        overview if tunings.side_by_side else "",
        *(
            _render_set(image_set, f"{prefix}-set-{number}")
            for number, image_set in enumerate(tunings.sets, 1)
        ),
        halves if tunings.base_to_new else "",
        _render_learning(tunings.curves, tunings.labels, prefix) if tunings.curves else "",
        element("h2", "Cost"),
        table(tunings.cost),
        render_provenance(
            provenance.sentences,
            provenance.methods,
            join(element("h3", "Runs"), list_table(provenance.files)),
            provenance.fact_sheets,
        ),
    )


def _render_set(image_set: SetDigest, prefix: str) -> Html:
    diagrams = element(
        "details",
        element("summary", "Calibration"),
        render_diagrams(image_set.reliability, prefix),
    )
    return join(
        element("h2", image_set.title),
        element("p", image_set.about, class_="quiet"),
        element("p", image_set.headline, class_="lead"),
        table(image_set.rates),
        diagrams,
    )


def _render_learning(curves: Sequence[LearningChart], labels: Sequence[str], prefix: str) -> Html:
    content = [element("h2", "Training curves")]
    for number, chart in enumerate(curves, 1):
        if len(curves) > 1:
            content.append(element("h3", chart.data))
        series = {curve.series for curve in chart.curves}
        content.append(legend(labels, series))
        drawing = charts.draw_learning(chart, f"{prefix}-learning-{number}")
        content.append(figure(drawing, chart.note, chart.title))
    return join(*content)
