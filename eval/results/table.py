"""Results as plain text for a terminal: a row per domain while it runs, and a summary at the end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ...engine.errors import escape_controls
from ..protocol import Protocol
from .average import MethodAverage, compute_averages, compute_gain, is_noise
from .outcome import DomainResult, Run

_NAME = 20
# Heading, key of the averages, factor, format; those with a spread over seeds show it.
_COLUMNS = (
    ("accuracy %", "accuracy", 100, ".2f"),
    ("worst tenth", "worst_accuracy", 100, ".2f"),
    ("gain", "gain", 100, "+.2f"),
    ("macro-F1 %", "macro_f1", 100, ".2f"),
    ("top-5 %", "top5_accuracy", 100, ".2f"),
    ("ECE %", "ece", 100, ".2f"),
    ("NLL", "nll", 1, ".3f"),
    ("mCE %", "mce", 1, ".1f"),
    ("forwards", "forwards_per_batch", 1, ".3g"),
    ("gradients", "pull_backs_per_batch", 1, ".3g"),
    ("images/s", "images_per_second", 1, ".1f"),
    ("process MB", "peak_bytes", 1e-6, ".0f"),
    ("guarded", "guarded", 1, ".3g"),
)


def format_header(labels: Sequence[str]) -> str:
    """Return the line above the rows of `format_row`."""
    return "top-1 accuracy, %".ljust(_NAME) + "".join(_align_cell(label, label) for label in labels)


def format_row(domain: DomainResult, protocol: Protocol) -> str:
    """Return the row of a domain: accuracy of each method, in percent.

    `*` marks the best method, and `~` methods that are statistically indistinguishable from the first.
    """
    accuracies = {label: result.tally.accuracy for label, result in domain.methods.items()}
    best, first = max(accuracies.values()), next(iter(accuracies))
    cells = []
    for label, value in accuracies.items():
        noise = label != first and is_noise(*compute_gain(domain, label))
        star = value == best and len(accuracies) > 1
        cells.append(_align_cell(label, f"{100 * value:.1f}{format_marks(best=star, noise=noise)}"))
    images = next(iter(domain.methods.values())).tally.images
    note = "" if domain.complete else f"  (first {images} images)"
    note += f"  ({domain.count_deviation})" if domain.count_deviation else ""
    note += f"  ({len(domain.unreadable):,} unreadable)" if domain.unreadable else ""
    note += "  (the prompt was learnt from its training images; not in the averages)" * domain.learnt_from
    return format_domain_name(domain, protocol).ljust(_NAME) + "".join(cells) + note


def format_marks(*, best: bool, noise: bool) -> str:
    """Return the marks behind an accuracy: always two characters, so that columns stay aligned."""
    return f"{'*' if best else ' '}{'~' if noise else ' '}"


def format_domain_name(domain: DomainResult, protocol: Protocol) -> str:
    """Return a domain's name, with severity and round if there are several."""
    severity = f" {domain.severity}" if domain.severity and len(protocol.severities) > 1 else ""
    return f"{escape_controls(domain.name)}{severity}{f' #{domain.round}' if protocol.rounds > 1 else ''}"


def format_summary(runs: Sequence[Run]) -> str:
    """Return a table of all methods: rates averaged over the domains, cost over all processed images.

    Columns without information (no guarded batch, no gradient, no mean corruption error) are left out.
    """
    by_label = compute_averages(runs)
    width = max(map(len, by_label), default=0) + 2
    columns = [
        column for column in _COLUMNS if any(_has_value(average, column[1]) for average in by_label.values())
    ]
    widths = [_choose_width(by_label.values(), key) for _, key, *_ in columns]
    headings = (name.rjust(size) for (name, *_), size in zip(columns, widths, strict=True))
    lines = ["method".ljust(width) + "".join(headings)]
    for label, average in by_label.items():
        cells = (
            _format_value(average, key, factor, form).rjust(size)
            for (_, key, factor, form), size in zip(columns, widths, strict=True)
        )
        lines.append(label.ljust(width) + "".join(cells))
    first = next(iter(by_label), "")
    lines.append(
        f"* best, ~ statistically indistinguishable from {first} (95 %)" if len(by_label) > 1 else ""
    )
    return "\n".join(lines).rstrip()


def _has_value(average: MethodAverage, key: str) -> bool:
    value = average.get_value(key)
    return value is not None and (key not in ("guarded", "pull_backs_per_batch") or bool(value))


def _format_value(average: MethodAverage, key: str, factor: float, form: str) -> str:
    value, deviation = average.get_value(key), average.get_spread(key)
    if value is None:
        return "–"
    text = format(value * factor, form)
    if key == "gain":
        return f"{text}{'~' if average.gain_is_noise else ' '}"
    return text if deviation is None else f"{text} ± {format(deviation * factor, form)}"


def _choose_width(rows: Iterable[MethodAverage], key: str) -> int:
    return 17 if any(average.get_spread(key) is not None for average in rows) else 12


def _align_cell(label: str, text: str) -> str:
    return text.rjust(max(12, len(label) + 2))
