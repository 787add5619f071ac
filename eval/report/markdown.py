"""The tables as Markdown, in GitHub's dialect."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .digest import comparison, tables
from .digest.explanations import MARKS_OF_RUNS, default_title
from .digest.notes import headline, warnings
from .digest.plain_text import plain
from .digest.sources import Source
from .digest.tables import Cell, Line, Table

_SPECIAL = re.compile(r"[\\`*\[\]<>|~$&]|(?<![^\W_])_|_(?![^\W_])")
_BLOCK = re.compile(r"^(\d*)([#+.)-])")  # what begins a heading, a list or a rule


def render(sources: Sequence[Source], title: str | None = None) -> bytes:
    """Return the document as UTF-8."""
    blocks = [f"# {escape(title or default_title(sources))}"]
    if len(sources) > 1:
        different = comparison.differences(sources)
        blocks += ["## Side by side", _table(comparison.overall(sources))]
        blocks += [] if different is None else [_table(different)]
    for source in sources:
        if len(sources) > 1:
            blocks.append(f"## {escape(source.name)}")
        blocks += _section(source)
    return ("\n\n".join([*blocks, escape(MARKS_OF_RUNS)]) + "\n").encode()


def escape(text: object) -> str:
    """Return text escaped for Markdown, also within a table."""
    return _SPECIAL.sub(lambda match: f"\\{match.group()}", plain(text))


def paragraph(text: object) -> str:
    """Return text escaped so that it stays one paragraph."""
    return _BLOCK.sub(r"\1\\\2", escape(text))


def _section(source: Source) -> list[str]:
    contents = [
        tables.summary(source),
        tables.by_domain(source),
        tables.by_severity(source),
        tables.by_round(source),
    ]
    return [
        paragraph(source.results.protocol.describe()),
        *(f"**{escape(text)}**" for text in warnings(source)),
        paragraph(headline(source)),
        *(_table(content) for content in contents if content is not None),
    ]


def _table(content: Table) -> str:
    above = [name for name, span in content.over for _ in range(span)]
    columns = [f"{a}: {c}" for a, c in zip(above, content.columns, strict=True)] if above else content.columns
    noted = any(line.note for line in content.lines)
    heads = [content.corner, *columns, *(["note"] if noted else [])]
    rule = ["---", *("---:" for _ in content.columns), *(["---"] if noted else [])]
    rows = [
        _row([escape(head) for head in heads]),
        _row(rule),
        *(_line(line, noted) for line in content.lines),
    ]
    return "\n".join([f"{escape(content.title)}:", "", *rows])


def _line(line: Line, noted: bool) -> str:
    name = f"*{escape(line.name)}*" if line.kind == "average" else escape(line.name)
    return _row([name, *map(_cell, line.cells), *([escape(line.note)] if noted else [])])


def _cell(cell: Cell) -> str:
    text = f"**{escape(cell.text)}**" if cell.best else escape(cell.text)
    return " ".join(filter(None, (text, cell.spread, "\\~" if cell.noise else "")))


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
