"""Results as plain text for a terminal: a row per domain while it runs, and a summary at the end."""

from __future__ import annotations

from collections.abc import Sequence

from .results import average
from .runner import DomainResult

_NAME = 20
# Heading, key of the averages, factor, format.
_COLUMNS = (
    ("accuracy %", "accuracy", 100, ".2f"),
    ("top-5 %", "top5_accuracy", 100, ".2f"),
    ("ECE %", "ece", 100, ".2f"),
    ("forwards", "forwards_per_batch", 1, "g"),
    ("images/s", "images_per_second", 1, ".1f"),
    ("process MB", "peak_bytes", 1e-6, ".0f"),
    ("guarded", "guarded", 1, "g"),
)


def header(labels: Sequence[str]) -> str:
    """The line above the rows of `row`."""
    return "top-1 accuracy, %".ljust(_NAME) + "".join(_cell(label, label) for label in labels)


def row(result: DomainResult) -> str:
    """One domain: accuracy of each method, in percent, the best one marked with `*`."""
    accuracies = {label: part.tally.accuracy for label, part in result.methods.items()}
    best = max(accuracies.values())
    cells = (
        _cell(label, f"{100 * value:.1f}{'*' if value == best and len(accuracies) > 1 else ' '}")
        for label, value in accuracies.items()
    )
    note = "" if result.complete else f"  (first {next(iter(result.methods.values())).tally.images} images)"
    return result.domain.name.ljust(_NAME) + "".join(cells) + note


def summary(results: Sequence[DomainResult]) -> str:
    """A table of all methods: accuracy and ECE averaged over the domains, cost over the whole run."""
    averages = {label: values for label, values in average(results).items() if values}
    width = max(map(len, averages), default=0) + 2
    lines = ["method".ljust(width) + "".join(name.rjust(12) for name, *_ in _COLUMNS)]
    for label, values in averages.items():
        cells = (format(values[key] * factor, kind).rjust(12) for _, key, factor, kind in _COLUMNS)
        lines.append(label.ljust(width) + "".join(cells))
    return "\n".join(lines)


def _cell(label: str, text: str) -> str:
    return text.rjust(max(12, len(label) + 2))
