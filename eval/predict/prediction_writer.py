"""Predictions written to a file or to standard output, batch by batch."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO

from ...engine.errors import InputError, OutputError, escape_controls, reason
from ...engine.files import check_writable, is_replaceable
from .image_paths import STANDARD
from .prediction_row import Row
from .row_format import csv_header, csv_line, csv_values, json_line


class PredictionWriter:
    """Writes rows as CSV or JSON Lines. The file is opened at the first write."""

    def __init__(self, out: Path, form: str | None, top: int, *, append: bool, overwrite: bool) -> None:
        """Check that the file can be written.

        Args:
            out: a file, or `-` for standard output.
            form: `csv` or `jsonl`; None chooses by the suffix of the file.
            top: guesses per row.
            append: continue an existing file.
            overwrite: replace an existing file.

        Raises:
            InputError: the file exists, or cannot be continued.
            OutputError: the file cannot be written.
        """
        self._out = None if str(out) == STANDARD else out
        self._top, self._csv = top, (form or _choose_format(out)) == "csv"
        self._text = [csv_line(csv_header(top))] if self._csv else []
        self._mode = "ab" if append else "wb" if overwrite else "xb"
        self._stream: IO[bytes] | None = None
        if self._out is None:
            return
        is_file = is_replaceable(self._out)  # rows are written as they come: a device or a pipe may take them
        if is_file:
            check_writable(self._out)
        if self._out.exists() and not overwrite:
            if not append:
                raise InputError(
                    f"{out} exists; go on at its end with --append, or replace it with --overwrite"
                )
            if is_file and _has_rows(out, self._text[0] if self._csv else "{"):
                self._text = []

    @property
    def on_screen(self) -> bool:
        """True if rows appear on a terminal."""
        return self._out is None and sys.stdout.isatty()

    def add(self, row: Row) -> None:
        """Add a row to those that the next `write` writes."""
        top = self._top
        line = csv_line(csv_values(row, top)) if self._csv else json_line(row, top)
        # A file name may hold commands to a terminal; files and pipes get it as it is.
        self._text.append(escape_controls(line[:-1]) + "\n" if self.on_screen else line)

    def write(self) -> None:
        """Write and flush the added rows, so that they survive the end of the process.

        Raises:
            BrokenPipeError: the reader of the pipe has ended.
            OutputError: the rows cannot be written.
        """
        # File names are bytes: CSV holds them unchanged, JSON as escapes.
        errors = sys.getfilesystemencodeerrors() if self._csv else "backslashreplace"
        try:
            if self._stream is None:
                self._stream = self._out.open(self._mode) if self._out else sys.stdout.buffer
            self._stream.write("".join(self._text).encode("utf-8", errors))
            self._stream.flush()
        except OSError as error:
            if self._out is None:  # otherwise Python flushes the buffer at exit and fails again
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if isinstance(error, BrokenPipeError):
                raise
            raise OutputError(
                f"cannot write {self._out or 'standard output'}: {reason(error)}; make room, or "
                "choose another place"
            ) from error
        self._text = []

    def close(self) -> None:
        """Close the file; rows that were added but not written are dropped."""
        if self._out is not None and self._stream is not None:
            with suppress(OSError):  # every written row has been flushed
                self._stream.close()


def _choose_format(out: Path) -> str:
    if out.suffix == ".json":
        raise InputError(f"{out} would hold one JSON object per line; call it .jsonl, or give --format")
    return "jsonl" if out.suffix in (".jsonl", ".ndjson") else "csv"


def _has_rows(out: Path, beginning: str) -> bool:
    """Return true if a file has content; raise if its rows have another form or its last one is cut."""
    try:
        with out.open("rb") as stream:
            head = stream.read(len(beginning.encode()))
            if not head:
                return False
            stream.seek(-1, os.SEEK_END)
            ends_with_newline = stream.read() == b"\n"
    except OSError as error:
        raise InputError(f"cannot read {out}: {reason(error)}; choose another --out") from error
    if head != beginning.encode():
        raise InputError(
            f"{out} has other columns or another form; --append with the same --top and --format"
        )
    if not ends_with_newline:
        raise InputError(f"{out} ends within a row; repair it, or choose another --out")
    return True
