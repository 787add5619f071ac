"""The tables as Markdown, in GitHub's dialect."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .digest.explanations import MARKS_OF_RUNS
from .digest.plain_text import plain
from .digest.report_digest import Digest, RunDigest
from .digest.tables import Cell, Row, Table

_SPECIAL = re.compile(r"[\\`*\[\]<>|~$&]|(?<![^\W_])_|_(?![^\W_])")
_BLOCK = re.compile(r"^(\d*)([#+.)-])")  # what begins a heading, a list or a rule


def render(digest: Digest) -> bytes:
    """Return the document as UTF-8."""
    blocks = [f"# {escape(digest.title)}"]
    if digest.comparison:
        blocks += [
            "## Side by side",
            *_render_tables(digest.comparison.methods, digest.comparison.differences),
        ]
    for run in digest.runs:
        if digest.comparison:
            blocks.append(f"## {escape(run.name)}")
        blocks += _render_run(run)
    return ("\n\n".join([*blocks, escape(MARKS_OF_RUNS)]) + "\n").encode()


def escape(text: object) -> str:
    """Return text escaped for Markdown, also within a table."""
    return _SPECIAL.sub(lambda match: f"\\{match.group()}", plain(text))


def paragraph(text: object) -> str:
    """Return text escaped so that it stays one paragraph."""
    return _BLOCK.sub(r"\1\\\2", escape(text))


def _render_run(run: RunDigest) -> list[str]:
    return [
        paragraph(run.protocol),
        *map(paragraph, run.origin),
        *(f"**{escape(text)}**" for text in run.warnings),
        paragraph(run.headline),
        *_render_tables(run.summary, run.domains),
        *_render_tables(*(breakdown.table for breakdown in (run.severities, run.rounds) if breakdown)),
    ]


def _render_tables(*contents: Table | None) -> list[str]:
    return [_render_table(content) for content in contents if content is not None]


def _render_table(content: Table) -> str:
    columns = list(content.columns)
    if content.column_groups:
        groups = [name for name, span in content.column_groups for _ in range(span)]
        columns = [f"{group}: {column}" for group, column in zip(groups, columns, strict=True)]
    has_notes = any(row.note for row in content.rows)
    headings = [content.corner, *columns, *(["note"] if has_notes else [])]
    rule = ["---", *("---:" for _ in content.columns), *(["---"] if has_notes else [])]
    rows = [
        _join_cells([escape(heading) for heading in headings]),
        _join_cells(rule),
        *(_render_row(row, has_notes) for row in content.rows),
    ]
    return "\n".join([f"{escape(content.title)}:", "", *rows])


def _render_row(row: Row, has_notes: bool) -> str:
    name = f"*{escape(row.name)}*" if row.kind == "average" else escape(row.name)
    return _join_cells([name, *map(_render_cell, row.cells), *([escape(row.note)] if has_notes else [])])


def _render_cell(cell: Cell) -> str:
    text = f"**{escape(cell.text)}**" if cell.best else escape(cell.text)
    return " ".join(filter(None, (text, cell.spread, "\\~" if cell.noise else "")))


def _join_cells(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
