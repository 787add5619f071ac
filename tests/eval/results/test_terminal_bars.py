"""Bars of accuracy in a terminal."""

from __future__ import annotations

import pytest
from fozo.eval.results.terminal_bars import format_average, format_bar, format_legend
from report_doubles import domain, run_of

LABELS = ("no_adapt", "fozo")


@pytest.mark.parametrize(
    ("first", "second", "bar", "rates"),
    [
        (50, 70, "=" * 24 + "+" * 10, "  50.0  +20.0"),  # of 49 cells: 24.5 is rounded to even, 34.3
        (70, 50, "=" * 24 + "-" * 10, "  70.0  -20.0"),
        (100, 100, "=" * 49, " 100.0   +0.0~"),
        (0, 0, "", "   0.0   +0.0~"),
    ],
)
def test_a_bar_shows_accuracy_and_gain(first: int, second: int, bar: str, rates: str) -> None:
    line = format_bar(domain("fog", first, second), *LABELS, 80)
    assert line == f"{'fog':17}{bar:49}{rates}"


@pytest.mark.parametrize("width", [20, 39, 40, 60, 80, 100, 300])
def test_bars_fit_the_terminal_and_are_plain(width: int) -> None:
    run = run_of([domain("a_corruption_with_a_long_name", 31, 92), domain("clean", 97, 97)])
    lines = [format_bar(result, *LABELS, width) for result in run.domains]
    lines += [format_average([run], *LABELS, width)]
    assert all(line.isascii() for line in [*lines, format_legend(*LABELS)])
    assert max(map(len, lines)) <= max(39, min(width, 100))


def test_the_average_is_over_the_corruptions() -> None:
    run = run_of([domain("fog", 20, 40), domain("snow", 40, 80), domain("clean", 90, 90)])
    assert format_average([run], *LABELS, 80).split()[-2:] == ["30.0", "+30.0"]
