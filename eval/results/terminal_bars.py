"""Bars of accuracy for a terminal: plain ASCII, one line per domain, for two methods."""

from __future__ import annotations

from collections.abc import Sequence

from .average import compute_averages, compute_gain, is_noise
from .outcome import DomainResult, Run

_NAME, _RATES = 17, 14  # columns of the name, and of accuracy and gain
_WIDEST, _NARROWEST = 100, 8  # of a line, and of a bar


def format_legend(first: str, second: str) -> str:
    """Return the lines above the bars; `first` and `second` are the labels of the methods."""
    return (
        f"accuracy in %: = {first}, + gained or - lost by {second}\n"
        f"(~: {second} is statistically indistinguishable from {first})"
    )


def format_bar(domain: DomainResult, first: str, second: str, width: int) -> str:
    """Return the line of a domain: name, bar, accuracy of the first method in percent, gain of the second.

    Args:
        domain: the domain.
        first: label of the method whose accuracy the bar begins with.
        second: label of the method that is compared with it.
        width: columns of the terminal.
    """
    before, after = (domain.methods[label].tally.accuracy for label in (first, second))
    return _format_line(domain.name, before, after, width, noise=is_noise(*compute_gain(domain, second)))


def format_average(runs: Sequence[Run], first: str, second: str, width: int) -> str:
    """Return the line of the average over the corruptions, with clean images left out."""
    averages = compute_averages(runs)
    noise = bool(averages[second].gain_is_noise)
    return _format_line("average", averages[first].accuracy, averages[second].accuracy, width, noise=noise)


def _format_line(name: str, before: float, after: float, width: int, *, noise: bool) -> str:
    length = max(_NARROWEST, min(width, _WIDEST) - _NAME - _RATES)
    cells = [round(length * rate) for rate in (before, after)]
    bar = "=" * min(cells) + ("+" if after > before else "-") * abs(cells[1] - cells[0])
    rates = f" {100 * before:5.1f} {100 * (after - before):+6.1f}{'~' if noise else ''}"
    return f"{name[: _NAME - 1].ljust(_NAME)}{bar.ljust(length)}{rates}"
