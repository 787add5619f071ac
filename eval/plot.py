"""One picture of a run: accuracy per domain and method. Needs matplotlib (`fozo[report]`)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..engine.errors import InputError
from ..engine.files import write_atomic
from .results import average
from .runner import DomainResult

# The first is usually no_adapt, the line to beat: grey. The others can be told apart without colour vision.
_COLOURS = ("#9aa0a6", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")


def save_plot(path: Path, results: Sequence[DomainResult], title: str) -> None:
    """Draws grouped bars and writes a PNG, atomically.

    Raises:
        InputError: matplotlib is not installed.
        OutputError: the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError(
            'the picture needs matplotlib; install it with: pip install "fozo[report]"'
        ) from error
    figure = Figure(figsize=(max(6.0, 1.1 * (len(results) + 1) + 1), 4.4), layout="constrained")
    axes = figure.add_subplot()
    _draw_bars(axes, results)
    axes.set_ylabel("top-1 accuracy, %")
    axes.set_ylim(0, 105)
    axes.set_title(title, fontsize=9, wrap=True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.92")
    axes.set_axisbelow(True)
    figure.legend(fontsize=8, frameon=False, loc="outside lower center", ncols=4)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=150)
    write_atomic(path, content.getvalue())


def _draw_bars(axes: Any, results: Sequence[DomainResult]) -> None:
    """A group of bars per domain and one for the average, a bar per method."""
    means = {label: values["accuracy"] for label, values in average(results).items() if values}
    width = 0.8 / max(1, len(means))
    for place, (label, mean) in enumerate(means.items()):
        heights = [100 * value for value in [*(r.methods[label].tally.accuracy for r in results), mean]]
        offset = (place - (len(means) - 1) / 2) * width
        positions = [index + offset for index in range(len(heights))]
        bars = axes.bar(positions, heights, width * 0.92, label=label, color=_COLOURS[place % len(_COLOURS)])
        axes.bar_label(bars, fmt="%.0f", fontsize=7, padding=1)
    axes.axvline(len(results) - 0.5, color="0.8", linewidth=1)
    names = [result.domain.name.replace("_", "\n") for result in results] + ["average"]
    axes.set_xticks(range(len(names)), names, fontsize=8)
