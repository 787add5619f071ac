"""Training curves of tunings: the loss over the calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...tuning.learning_curve import WINDOWS, average_steps
from .chart_data import Curve
from .explanations import LEARNING
from .tuning_sources import Tuning, describe_data


@dataclass(frozen=True)
class LearningCurve:
    """Losses of one tuning over the calls; the `images` of its curves are calls.

    Attributes:
        label: label of the tuning.
        series: index that decides on the colour.
        mean: mean over the seeds.
        seeds: one curve per seed; none if there is only one seed.
    """

    label: str
    series: int
    mean: Curve
    seeds: tuple[Curve, ...]


@dataclass(frozen=True)
class LearningChart:
    """Training curves of all tunings on the same data.

    Attributes:
        title: description of the chart.
        data: name of the data.
        curves: one for each tuning that has one.
        note: explanation of the chart.
    """

    title: str
    data: str
    curves: tuple[LearningCurve, ...]
    note: str


def make_learning_charts(tunings: Sequence[Tuning], labels: Sequence[str]) -> list[LearningChart]:
    """Return a chart for each data set that was learnt from; none for methods without steps.

    Args:
        tunings: the tunings.
        labels: all labels of the report; their order decides on the colours. The untuned text has the first.
    """
    by_data: dict[str, list[LearningCurve]] = {}
    for tuning in tunings:
        if tuning.record.cost.calls and all(source.record.curve["loss"] for source in tuning.sources):
            curve = _make_curve(tuning, 1 + labels.index(tuning.label))
            by_data.setdefault(describe_data(tuning), []).append(curve)
    return [
        LearningChart(f"Training loss over the calls, {data}", data, tuple(curves), LEARNING)
        for data, curves in by_data.items()
    ]


def _make_curve(tuning: Tuning, series: int) -> LearningCurve:
    cost = tuning.record.cost
    seeds = []
    for source in tuning.sources:
        steps, means = average_steps(np.asarray(source.record.curve["loss"]), WINDOWS)
        seeds.append(
            Curve(np.asarray(steps * cost.calls / cost.steps, np.float64), np.asarray(means, np.float64))
        )
    shortest = min(len(curve.values) for curve in seeds)
    mean = np.mean([curve.values[:shortest] for curve in seeds], axis=0, dtype=np.float64)
    together = Curve(seeds[0].images[:shortest], np.asarray(mean))
    return LearningCurve(tuning.label, series, together, tuple(seeds) if len(seeds) > 1 else ())
