"""The tables as Markdown, in GitHub's dialect."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .digest.explanations import MARKS_OF_RUNS
from .digest.plain_text import plain
from .digest.report_digest import Digest, RunDigest
from .digest.tables import Cell, Row, Table
from .digest.tuning_digest import TuningsDigest

_SPECIAL = re.compile(r"[\\`*\[\]<>|~$&]|(?<![^\W_])_|_(?![^\W_])")
_BLOCK = re.compile(r"^(\d*)([#+.)-])")  # what begins a heading, a list or a rule


def render(digest: Digest) -> bytes:
    """Return the document as UTF-8."""
    has_headings = len(digest.runs) + (digest.tunings is not None) > 1
    blocks = [f"# {escape(digest.title)}"]
    if digest.tunings:
        blocks += [*(["## Tunings"] if has_headings else []), *_render_tunings(digest.tunings)]
    if digest.comparison:
        blocks += [
            "## Side by side",
            *_render_tables(digest.comparison.methods, digest.comparison.differences),
        ]
    for run in digest.runs:
        if has_headings:
            blocks.append(f"## {escape(run.name)}")
        blocks += _render_run(run)
    marks = [escape(MARKS_OF_RUNS)] if digest.runs else []
    return ("\n\n".join([*blocks, *marks]) + "\n").encode()


def escape(text: object) -> str:
    """Return text escaped for Markdown, also within a table."""
    return _SPECIAL.sub(lambda match: f"\\{match.group()}", plain(text))


def paragraph(text: object) -> str:
    """Return text escaped so that it stays one paragraph."""
    return _BLOCK.sub(r"\1\\\2", escape(text))


def _render_tunings(tunings: TuningsDigest) -> list[str]:
    blocks = [f"**{escape(text)}**" for text in tunings.warnings]
    blocks += _render_tables(*tunings.side_by_side)
    for image_set in tunings.sets:
        blocks += [paragraph(f"{image_set.title}: {image_set.about}"), paragraph(image_set.headline)]
        blocks += _render_tables(image_set.rates)
    blocks += _render_tables(*tunings.base_to_new, tunings.cost)
    options = (f"{method.label}: {method.summary}" for method in tunings.provenance.methods)
    listed = "\n".join(f"- {escape(text)}" for text in (*tunings.provenance.sentences, *options))
    return [*blocks, listed, *(escape(text) for text in _list_notes(tunings))]


def _list_notes(tunings: TuningsDigest) -> list[str]:
    """Return the explanations of the tables, each once."""
    tables = (*tunings.side_by_side, *(image_set.rates for image_set in tunings.sets), tunings.cost)
    return list(dict.fromkeys(content.note for content in tables if content.note))


def _render_run(run: RunDigest) -> list[str]:
    return [
        paragraph(run.protocol),
        *map(paragraph, run.origin),
        *(f"**{escape(text)}**" for text in run.warnings),
        paragraph(run.headline),
        *_render_tables(run.summary, run.domains, run.published, run.macro_f1),
        *([escape(run.published.note)] if run.published else []),
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
