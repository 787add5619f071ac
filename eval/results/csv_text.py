"""Text in CSV files, which spreadsheets read too."""

from __future__ import annotations

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def protect_cell(value: object) -> object:
    """Return a value for a cell of a CSV file: text that a spreadsheet would take for a formula gets a `'`.

    Numbers are left alone, and so is all other text.

    >>> protect_cell("=1+1"), protect_cell("cat"), protect_cell(-1.5)
    ("'=1+1", 'cat', -1.5)
    """
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
