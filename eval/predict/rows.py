"""Predictions as rows of text, CSV or JSON Lines, on their way to a file or to standard output."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import IO

from ...engine.errors import InputError, OutputError
from ...engine.files import check_writable
from .inputs import STANDARD
from .predict import Guess, Row


class Rows:
    """Rows on their way to a file or to standard output. Nothing is opened before the first are written."""

    def __init__(self, out: Path, form: str | None, top: int, *, append: bool, overwrite: bool) -> None:
        self._out = None if str(out) == STANDARD else out
        self._top, self._csv = top, (form or _form(out)) == "csv"
        self._text = [csv_line(csv_header(top))] if self._csv else []
        self._mode = "ab" if append else "wb" if overwrite else "xb"
        self._stream: IO[bytes] | None = None
        if self._out is None:
            return
        check_writable(self._out)
        if self._out.exists() and not overwrite:
            if not append:
                raise InputError(
                    f"{out} exists; go on at its end with --append, or replace it with --overwrite"
                )
            if _continued(out, self._text[0] if self._csv else "{"):
                self._text = []

    @property
    def on_screen(self) -> bool:
        """Whether a person sees them as they come."""
        return self._out is None and sys.stdout.isatty()

    def add(self, row: Row) -> None:
        """Another row, not written yet."""
        top = self._top
        self._text.append(csv_line(csv_values(row, top)) if self._csv else json_line(row, top))

    def write(self) -> None:
        """Writes what was added, so that it stays when the process is killed.

        Raises:
            BrokenPipeError: nobody reads any more.
            OutputError: it cannot be written.
        """
        # Names of files are bytes: in CSV they are written as they are, in JSON as escapes.
        errors = sys.getfilesystemencodeerrors() if self._csv else "backslashreplace"
        try:
            if self._stream is None:
                self._stream = self._out.open(self._mode) if self._out else sys.stdout.buffer
            self._stream.write("".join(self._text).encode("utf-8", errors))
            self._stream.flush()
        except OSError as error:
            if self._out is None:  # what is left in its buffer must not fail once more when Python ends
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if isinstance(error, BrokenPipeError):
                raise
            raise OutputError(
                f"cannot write {self._out or 'standard output'}: {error.strerror or error}; make room, or "
                "choose another place"
            ) from error
        self._text = []

    def close(self) -> None:
        """Closes the file; what was not written is dropped."""
        if self._out is not None and self._stream is not None:
            with suppress(OSError):  # all that counts has been flushed
                self._stream.close()


def _form(out: Path) -> str:
    if out.suffix == ".json":
        raise InputError(f"{out} would hold one JSON object per line; call it .jsonl, or give --format")
    return "jsonl" if out.suffix in (".jsonl", ".ndjson") else "csv"


def _continued(out: Path, beginning: str) -> bool:
    """Whether a file has rows already; they must be of the same kind."""
    try:
        with out.open("rb") as stream:
            found = stream.read(len(beginning.encode()))
            if not found:
                return False
            stream.seek(-1, os.SEEK_END)
            whole = stream.read() == b"\n"
    except OSError as error:
        raise InputError(f"cannot read {out}: {error.strerror or error}; choose another --out") from error
    if found != beginning.encode():
        raise InputError(
            f"{out} has other columns or another form; --append with the same --top and --format"
        )
    if not whole:
        raise InputError(f"{out} ends within a row; repair it, or choose another --out")
    return True


def csv_header(top: int) -> list[str]:
    """The columns of a table of rows with so many guesses; those of the second end in `_2`, and so on."""
    kinds = [f.name for f in fields(Guess)]
    guesses = [kind if rank == 1 else f"{kind}_{rank}" for rank in range(1, top + 1) for kind in kinds]
    return ["path", *guesses, "batch", "error"]


def csv_values(row: Row, top: int) -> list[object]:
    """What goes into the columns of `csv_header`."""
    cells = [value for guess in row.top for value in asdict(guess).values()]
    missing = [None] * (len(csv_header(top)) - 3 - len(cells))
    return [row.path, *cells, *missing, row.batch, row.error]


def csv_line(values: Sequence[object]) -> str:
    r"""A line of a table, quoted as RFC 4180 has it, with `\n` at its end; None is an empty cell."""
    stream = io.StringIO()
    csv.writer(stream).writerow(values)  # ends in \r\n: only so are both characters quoted in a cell
    return stream.getvalue()[:-2] + "\n"


def json_line(row: Row, top: int) -> str:
    """A row as a JSON object in a line of its own; the list `top` is there for more than one guess."""
    best = asdict(row.top[0]) if row.top else {f.name: None for f in fields(Guess)}
    values = {"path": row.path, **best, "batch": row.batch, "error": row.error}
    if top > 1:
        values["top"] = [asdict(guess) for guess in row.top]
    return json.dumps(values, ensure_ascii=False, allow_nan=False) + "\n"
