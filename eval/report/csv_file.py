"""All counts and rates as CSV: a row per file, seed, domain, severity, round and method."""

from __future__ import annotations

import csv
import io
from typing import Any

from ..results.csv_text import protect_cell
from .digest.plain_text import plain
from .digest.report_digest import Digest


def render(digest: Digest) -> bytes:
    """Return the file as UTF-8, with numbers in full precision.

    Text that a spreadsheet would interpret as a formula is prefixed with `'`.
    """
    rows = [row for run in digest.runs for row in run.counts]
    rows += digest.tunings.rows if digest.tunings else ()
    stream = io.StringIO()
    columns = dict.fromkeys(name for row in rows for name in row)  # runs and tunings share most of them
    writer = csv.DictWriter(stream, list(columns), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _format(value) for key, value in row.items()} for row in rows)
    return stream.getvalue().encode()


def _format(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    return str(protect_cell(plain(value)))
