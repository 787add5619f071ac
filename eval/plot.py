"""One picture of a run: accuracy per domain and method. Needs matplotlib (`fozo[report]`)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from ..engine.errors import InputError
from ..engine.files import write_atomic
from .results import average
from .runner import DomainResult


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
    means = {label: values["accuracy"] for label, values in average(results).items() if values}
    groups = [result.domain.name.replace("_", "\n") for result in results] + ["average"]
    figure = Figure(figsize=(max(6.0, 1.1 * len(groups) + 1), 4.2), layout="constrained")
    axes = figure.add_subplot()
    width = 0.8 / max(1, len(means))
    for place, (label, mean) in enumerate(means.items()):
        heights = [100 * value for value in [*(r.methods[label].tally.accuracy for r in results), mean]]
        positions = [index + (place - (len(means) - 1) / 2) * width for index in range(len(groups))]
        bars = axes.bar(positions, heights, width * 0.92, label=label)
        axes.bar_label(bars, fmt="%.0f", fontsize=7, padding=1)
    axes.axvline(len(results) - 0.5, color="0.8", linewidth=1)
    axes.set_xticks(range(len(groups)), groups, fontsize=8)
    axes.set_ylabel("top-1 accuracy, %")
    axes.set_ylim(0, 105)
    axes.set_title(title, fontsize=9, wrap=True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.92")
    axes.set_axisbelow(True)
    axes.legend(ncols=len(means), fontsize=8, frameon=False, loc="upper center")
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=150)
    write_atomic(path, content.getvalue())
