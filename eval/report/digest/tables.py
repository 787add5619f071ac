"""Tables of a report, independent of the format that they are written in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ...results.average import MethodAverage
from .explanations import MACRO_F1, MARKS, explain_summary
from .groups import Group, Kind, average_by_domain_and_severity, average_overall, group_by_domain
from .sources import Source

NONE = "–"


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: the value.
        spread: its standard deviation or error, or an empty text.
        best: true for the best value of its row or column.
        noise: true if the value is statistically indistinguishable from that of the first method.
    """

    text: str
    spread: str = ""
    best: bool = False
    noise: bool = False


@dataclass(frozen=True)
class Row:
    """A named row of a table; `note` is a remark on it, or an empty text."""

    name: str
    cells: tuple[Cell, ...]
    kind: Kind = "single"
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        title: content and unit.
        corner: heading of the rows' names.
        columns: headings of the cells.
        rows: the rows.
        column_groups: headings above the columns with the number of columns each spans, or none.
        note: explanation of the table, or an empty text.
    """

    title: str
    corner: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    column_groups: tuple[tuple[str, int], ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Column:
    """A column of rates.

    Attributes:
        heading: its heading.
        key: name of the rate in `MethodAverage`.
        factor: from the rate to the unit of the heading.
        form: format of the numbers.
        best: 1 if the largest is marked, -1 the smallest, 0 none.
        optional: left out where no method has the rate.
    """

    heading: str
    key: str
    factor: float = 1
    form: str = ".2f"
    best: int = 0
    optional: bool = False


_SUMMARY = (
    Column("accuracy, %", "accuracy", 100, best=1),
    Column("worst tenth, %", "worst_accuracy", 100, best=1, optional=True),
    Column("gain ± error", "gain", 100, "+.2f"),
    Column("macro-F1, %", "macro_f1", 100, best=1, optional=True),
    Column("top-5, %", "top5_accuracy", 100, best=1),
    Column("ECE, %", "ece", 100, best=-1),
    Column("NLL", "nll", 1, ".3f", best=-1),
    Column("mCE, %", "mce", 1, ".1f", best=-1, optional=True),
    Column("forwards", "forwards_per_batch", 1, ".3g"),
    Column("gradients", "pull_backs_per_batch", 1, ".3g", optional=True),
    Column("images/s", "images_per_second", 1, ".1f"),
    Column("process, MB", "peak_bytes", 1e-6, ",.0f"),
    Column("guarded", "guarded", 1, ".3g"),
)


def tabulate_summary(source: Source) -> Table:
    """Return a row per method with its rates and its cost."""
    averages = average_overall(source.results)
    values = list(averages.values())
    columns = [
        column
        for column in _SUMMARY
        if not column.optional or any(rates.get_value(column.key) for rates in values)
    ]
    if len(averages) == 1:
        columns = [column for column in columns if column.key != "gain"]
    cells = zip(*(format_column(column, values) for column in columns), strict=True)
    rows = tuple(Row(label, row) for label, row in zip(averages, cells, strict=True))
    headings = tuple(column.heading for column in columns)
    return Table("Summary", "method", headings, rows, note=explain_summary(source))


def tabulate_domains(source: Source) -> Table:
    """Return accuracy per domain and method."""
    table = tabulate_groups(source, group_by_domain(source.results), "domain")
    note = MARKS.format(first=source.labels[0]) if len(source.labels) > 1 else ""
    return replace(table, note=note)


def tabulate_macro_f1(source: Source) -> Table | None:
    """Return macro-F1 per domain and method; None where classes were not counted."""
    groups = group_by_domain(source.results)
    if any(values.macro_f1 is None for group in groups for values in group.averages.values()):
        return None
    column = Column("", "macro_f1", 100, ".1f", best=1)
    rows = tuple(
        Row(group.name, format_column(column, list(group.averages.values())), group.kind, group.note)
        for group in groups
    )
    return Table("Macro-F1 per domain, %", "domain", tuple(source.labels), rows, note=MACRO_F1)


def tabulate_groups(source: Source, groups: Sequence[Group], name: str) -> Table:
    """Return accuracy per group and method; `name` says what distinguishes the groups."""
    rows = tuple(
        Row(group.name, _format_accuracies(group.averages), group.kind, group.note) for group in groups
    )
    return Table(f"Top-1 accuracy per {name}, %", name, tuple(source.labels), rows)


def tabulate_severities_of(source: Source, label: str) -> Table:
    """Return the accuracy of a method per domain and severity; empty if there is only one severity."""
    by_name = average_by_domain_and_severity(source.results)
    severities = sorted({severity for averages in by_name.values() for severity in averages})
    rows = tuple(
        Row(
            name,
            tuple(
                _format_accuracy(averages[severity][label]) if severity in averages else Cell(NONE)
                for severity in severities
            ),
        )
        for name, averages in by_name.items()
    )
    return Table(label, "domain", tuple(map(str, severities)), rows)


def _format_accuracies(averages: Mapping[str, MethodAverage]) -> tuple[Cell, ...]:
    """Return the accuracy of each method in percent, marking the best and those not above noise."""
    return format_column(Column("", "accuracy", 100, ".1f", best=1), list(averages.values()), mark_noise=True)


def format_column(
    column: Column, values: Sequence[MethodAverage], mark_noise: bool = False
) -> tuple[Cell, ...]:
    """Return the rate of each method with its spread; the best is marked.

    Args:
        column: the rate.
        values: averages of the methods.
        mark_noise: mark what is statistically indistinguishable from the first method; gains always are.
    """
    numbers = [rates.get_value(column.key) for rates in values]
    scaled = [None if number is None else number * column.factor for number in numbers]
    texts = [NONE if value is None else _format_sign(format(value, column.form)) for value in scaled]
    best = _find_best(column, [value for value in scaled if value is not None], len(values))
    return tuple(
        Cell(
            text,
            _format_spread(column, rates),
            text == best,
            bool(rates.gain_is_noise) and (mark_noise or column.key == "gain"),
        )
        for text, rates in zip(texts, values, strict=True)
    )


def _find_best(column: Column, values: Sequence[float], methods: int) -> str | None:
    if not column.best or methods < 2 or not values:
        return None
    return _format_sign(format(column.best * max(column.best * value for value in values), column.form))


def _format_spread(column: Column, values: MethodAverage) -> str:
    spread = values.gain_error if column.key == "gain" else values.get_spread(column.key)
    return "" if spread is None else f"± {format(spread * column.factor, column.form.lstrip('+'))}"


def _format_accuracy(values: MethodAverage) -> Cell:
    return Cell(f"{100 * values.accuracy:.1f}", noise=bool(values.gain_is_noise))


def _format_sign(text: str) -> str:
    """Return a number with a typographic minus, and without one before zero."""
    return text.replace("-", "−") if any(digit in text for digit in "123456789") else text.lstrip("-")
