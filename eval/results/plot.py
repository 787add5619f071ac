"""Picture of a run: accuracy per domain and method. Needs matplotlib (`fozo[report]`)."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...engine.errors import InputError
from ...engine.files import write_atomic
from .average import average_rate, compute_averages
from .outcome import Run

# The first is usually no_adapt, the line to beat: grey. The others can be told apart without colour vision.
_COLOURS = ("#9aa0a6", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")


def save_plot(path: Path, runs: Sequence[Run], title: str) -> None:
    """Write a PNG with grouped bars, atomically; bars are means over seeds, severities and rounds.

    A `$` in a name is no formula.

    Raises:
        InputError: matplotlib is not installed.
        OutputError: the file cannot be written.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise InputError(
            'the picture needs matplotlib; install it with: pip install "fozo[report]"'
        ) from error
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
        content = _draw(runs, title)
    write_atomic(path, content)


def _draw(runs: Sequence[Run], title: str) -> bytes:
    """Return the picture as the content of a PNG."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(domain.name for run in runs for domain in run.domains))
    figure = Figure(figsize=(max(6.0, 1.1 * (len(names) + 1) + 1), 4.4), layout="constrained")
    axes = figure.add_subplot()
    _draw_bars(axes, runs, names)
    axes.set_ylabel("top-1 accuracy, %")
    axes.set_ylim(0, 105)
    axes.set_title(_escape(title), fontsize=9, wrap=True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.92")
    axes.set_axisbelow(True)
    figure.legend(fontsize=8, frameon=False, loc="outside lower center", ncols=4)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=150)
    return content.getvalue()


def _draw_bars(axes: Any, runs: Sequence[Run], names: Sequence[str]) -> None:
    """Draw a group of bars per domain and one for the average, with a bar per method."""
    by_label = compute_averages(runs)
    width = 0.8 / max(1, len(by_label))
    results = [[d for run in runs for d in run.domains if d.name == name] for name in names]
    for number, (label, average) in enumerate(by_label.items()):
        rates = [*(average_rate(domains, label, "accuracy") for domains in results), average.accuracy]
        heights = [100 * rate for rate in rates]
        offset = (number - (len(by_label) - 1) / 2) * width
        positions = [index + offset for index in range(len(heights))]
        bars = axes.bar(
            positions, heights, width * 0.92, label=_escape(label), color=_COLOURS[number % len(_COLOURS)]
        )
        axes.bar_label(bars, fmt="%.0f", fontsize=7, padding=1)
    axes.axvline(len(names) - 0.5, color="0.8", linewidth=1)
    ticks = [_escape(name.replace("_", "\n")) for name in names] + ["average"]
    axes.set_xticks(range(len(ticks)), ticks, fontsize=8)


def _escape(text: str) -> str:
    """Return a text that matplotlib draws as it is: `$` begins no formula, and `_` hides no label."""
    return text.replace("$", r"\$").replace("_", " _", int(text.startswith("_")))
