"""Predictions as lines of CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, fields

from ..results.csv_text import protect_cell
from .prediction_row import Guess, Row


def csv_header(top: int) -> list[str]:
    """Return the columns of rows with `top` guesses; those of the second guess end in `_2`, and so on."""
    kinds = [f.name for f in fields(Guess)]
    guesses = [kind if rank == 1 else f"{kind}_{rank}" for rank in range(1, top + 1) for kind in kinds]
    return ["path", *guesses, "batch", "error"]


def csv_values(row: Row, top: int) -> list[object]:
    """Return a row's values for the columns of `csv_header`; text like a formula begins with `'`."""
    cells = [value for guess in row.top for value in asdict(guess).values()]
    missing = [None] * (len(csv_header(top)) - 3 - len(cells))
    return [protect_cell(value) for value in (row.path, *cells, *missing, row.batch, row.error)]


def csv_line(values: Sequence[object]) -> str:
    r"""Return a CSV line, quoted as in RFC 4180, ending in `\n`; None is an empty cell."""
    stream = io.StringIO()
    csv.writer(stream).writerow(values)  # ends in \r\n: only so are both characters quoted in a cell
    return stream.getvalue()[:-2] + "\n"


def json_line(row: Row, top: int) -> str:
    """Return a row as a line with a JSON object; the list `top` is present for more than one guess."""
    best = asdict(row.top[0]) if row.top else {f.name: None for f in fields(Guess)}
    values = {"path": row.path, **best, "batch": row.batch, "error": row.error}
    if top > 1:
        values["top"] = [asdict(guess) for guess in row.top]
    return json.dumps(values, ensure_ascii=False, allow_nan=False) + "\n"
