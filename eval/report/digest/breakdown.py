"""The sections that break accuracy down by severity and by round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .chart_data import StepChart
from .groups import Group, group_by_round, group_by_severity
from .sources import Source
from .tables import Table, tabulate_groups, tabulate_severities_of


@dataclass(frozen=True)
class Breakdown:
    """Accuracy by one attribute of the domains.

    Attributes:
        title: heading of the section.
        chart: mean accuracy of every method.
        table: the same as numbers.
        details_title: heading of the details.
        details: a table per method, or none.
    """

    title: str
    chart: StepChart
    table: Table
    details_title: str = ""
    details: tuple[Table, ...] = ()


def digest_severities(source: Source) -> Breakdown | None:
    """Return accuracy by severity; None if there is only one severity."""
    groups = group_by_severity(source.results)
    if not groups:
        return None
    return Breakdown(
        "By severity",
        _chart_groups(source, groups, "severity"),
        tabulate_groups(source, groups, "severity"),
        "Every domain at every severity, per method: top-1 accuracy, %",
        tuple(tabulate_severities_of(source, label) for label in source.labels),
    )


def digest_rounds(source: Source) -> Breakdown | None:
    """Return accuracy by round; None if there is only one round."""
    groups = group_by_round(source.results)
    if not groups:
        return None
    table = tabulate_groups(source, groups, "round")
    return Breakdown("By round", _chart_groups(source, groups, "round"), table)


def _chart_groups(source: Source, groups: Sequence[Group], axis: str) -> StepChart:
    values = tuple(tuple(100 * group.averages[label].accuracy for group in groups) for label in source.labels)
    return StepChart(f"Mean accuracy by {axis}", axis, tuple(group.name for group in groups), values)
