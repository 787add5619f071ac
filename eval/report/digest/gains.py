"""The section on the gain of each method over the first one."""

from __future__ import annotations

from dataclasses import dataclass

from ...results.average import CONFIDENCE
from .chart_data import Bar, BarChart
from .explanations import GAINS
from .groups import Group, group_by_domain
from .sources import Source

_MARGIN = 0.04  # of the range, at either end of the axis


@dataclass(frozen=True)
class Gains:
    """Gains over the first method.

    Attributes:
        title: heading of the section.
        charts: a chart per method, except the first.
        note: explanation of the charts.
    """

    title: str
    charts: tuple[BarChart, ...]
    note: str


def digest_gains(source: Source) -> Gains | None:
    """Return the gain of each method per domain; None if there is only one method."""
    first, *compared = source.labels
    if not compared:
        return None
    groups = group_by_domain(source.results)
    bars = {label: tuple(_make_bar(group, label) for group in groups) for label in compared}
    limits = _find_limits([bar for row in bars.values() for bar in row])
    charts = tuple(
        BarChart(label, f"Gain of {label} over {first} per domain", series, bars[label], limits)
        for series, label in enumerate(compared, 1)
    )
    return Gains(f"Gain over {first}", charts, GAINS.format(first=first))


def _make_bar(group: Group, label: str) -> Bar:
    values = group.averages[label]
    assert values.gain is not None and values.gain_error is not None, "the first method has no bar"
    reach = CONFIDENCE * values.gain_error
    return Bar(group.name, 100 * values.gain, 100 * reach, bool(values.gain_is_noise), group.kind)


def _find_limits(bars: list[Bar]) -> tuple[float, float]:
    low = min(0.0, *(bar.value - bar.reach for bar in bars))
    high = max(0.0, *(bar.value + bar.reach for bar in bars))
    margin = _MARGIN * (high - low) or 1.0
    return low - margin, high + margin
