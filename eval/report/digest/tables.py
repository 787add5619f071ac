"""What the tables of a report say, before it is written as HTML or Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...results.average import MethodAverage
from . import groups
from .groups import Group, Kind
from .sources import Source

NONE = "–"
Averages = Mapping[str, MethodAverage]


@dataclass(frozen=True)
class Cell:
    """A number: its text, the spread behind it, whether it is the best, and whether it is noise."""

    text: str
    spread: str = ""
    best: bool = False
    noise: bool = False


@dataclass(frozen=True)
class Line:
    """A row: its name, its cells, what it is, and a note on it."""

    name: str
    cells: tuple[Cell, ...]
    kind: Kind = "part"
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        title: what it shows, and in which unit.
        corner: heading of the rows' names.
        columns: headings of the cells.
        lines: the rows.
        over: headings above the columns with the number of columns each spans, or none.
    """

    title: str
    corner: str
    columns: tuple[str, ...]
    lines: tuple[Line, ...]
    over: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class _Column:
    heading: str
    key: str
    factor: float = 1
    form: str = ".2f"
    best: int = 0  # 1: the largest, -1: the smallest, 0: none is marked
    optional: bool = False


_SUMMARY = (
    _Column("accuracy, %", "accuracy", 100, best=1),
    _Column("gain ± error", "gain", 100, "+.2f"),
    _Column("top-5, %", "top5_accuracy", 100, best=1),
    _Column("ECE, %", "ece", 100, best=-1),
    _Column("NLL", "nll", 1, ".3f", best=-1),
    _Column("mCE, %", "mce", 1, ".1f", best=-1, optional=True),
    _Column("forwards", "forwards_per_batch", 1, ".3g"),
    _Column("images/s", "images_per_second", 1, ".1f"),
    _Column("process, MB", "peak_bytes", 1e-6, ",.0f"),
    _Column("guarded", "guarded", 1, ".3g"),
)


def summary(source: Source) -> Table:
    """Return a row per method with its rates and its cost."""
    averages = groups.overall(source.results)
    values = list(averages.values())
    columns = [
        c for c in _SUMMARY if not c.optional or any(rates.value(c.key) is not None for rates in values)
    ]
    if len(averages) == 1:
        columns = [column for column in columns if column.key != "gain"]
    cells = zip(*(_column(column, values) for column in columns), strict=True)
    lines = tuple(Line(label, row) for label, row in zip(averages, cells, strict=True))
    return Table("Summary", "method", tuple(column.heading for column in columns), lines)


def by_domain(source: Source) -> Table:
    """Return accuracy per domain and method."""
    lines = tuple(line(group) for group in groups.by_domain(source.results))
    return Table("Top-1 accuracy per domain, %", "domain", tuple(source.labels), lines)


def by_severity(source: Source) -> Table | None:
    """Return accuracy per severity and method, if there are several severities."""
    lines = tuple(line(group) for group in groups.by_severity(source.results))
    title = "Top-1 accuracy per severity, %"
    return Table(title, "severity", tuple(source.labels), lines) if lines else None


def by_round(source: Source) -> Table | None:
    """Return accuracy per round and method, if there are several rounds."""
    lines = tuple(line(group) for group in groups.by_round(source.results))
    return Table("Top-1 accuracy per round, %", "round", tuple(source.labels), lines) if lines else None


def severities_of(source: Source, label: str) -> Table | None:
    """Return the accuracy of a method per domain and severity, if there are several severities."""
    by_name = groups.by_domain_and_severity(source.results)
    severities = sorted({severity for row in by_name.values() for severity in row})
    lines = [
        Line(
            name,
            tuple(
                _format_accuracy(row[severity][label]) if severity in row else Cell(NONE)
                for severity in severities
            ),
        )
        for name, row in by_name.items()
    ]
    return Table(label, "domain", tuple(map(str, severities)), tuple(lines)) if lines else None


def line(group: Group) -> Line:
    """Return the accuracies of all methods on a group as a row."""
    return Line(group.name, accuracies(group.averages), group.kind, group.note)


def accuracies(averages: Averages, form: str = ".1f") -> tuple[Cell, ...]:
    """Return the accuracy of each method in percent, marking the best and those not above noise."""
    return _column(_Column("", "accuracy", 100, form, best=1), list(averages.values()), mark_noise=True)


def _column(column: _Column, values: Sequence[MethodAverage], mark_noise: bool = False) -> tuple[Cell, ...]:
    numbers = [rates.value(column.key) for rates in values]
    scaled = [None if number is None else number * column.factor for number in numbers]
    texts = [NONE if value is None else _format_sign(format(value, column.form)) for value in scaled]
    best = _best(column, [value for value in scaled if value is not None], len(values))
    return tuple(
        Cell(
            text,
            _spread(column, rates),
            text == best,
            bool(rates.gain_is_noise) and (mark_noise or column.key == "gain"),
        )
        for text, rates in zip(texts, values, strict=True)
    )


def _best(column: _Column, values: Sequence[float], methods: int) -> str | None:
    if not column.best or methods < 2 or not values:
        return None
    return _format_sign(format(column.best * max(column.best * value for value in values), column.form))


def _spread(column: _Column, values: MethodAverage) -> str:
    spread = values.gain_error if column.key == "gain" else values.spread(column.key)
    return "" if spread is None else f"± {format(spread * column.factor, column.form.lstrip('+'))}"


def _format_accuracy(values: MethodAverage) -> Cell:
    return Cell(f"{100 * values.accuracy:.1f}", noise=bool(values.gain_is_noise))


def _format_sign(text: str) -> str:
    """Return a number with a typographic minus, and without one before zero."""
    return text.replace("-", "−") if any(digit in text for digit in "123456789") else text.lstrip("-")
