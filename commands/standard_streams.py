"""Standard output and error that may fail at any time without ending the work of a command."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast


class LenientStream:
    """A text stream that drops what cannot be written, and remembers the first error.

    Attributes:
        error: of the first failure; None while there was none.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        """Write a text, or drop it."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self._drop(error)
            return len(text)

    def flush(self) -> None:
        """Flush what was written, or drop it."""
        try:
            self._stream.flush()
        except OSError as error:
            self._drop(error)

    def _drop(self, error: OSError) -> None:
        self.error = self.error or error
        with suppress(
            OSError, ValueError
        ):  # else Python would try the rest of the buffer again when it exits
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def lenient_streams() -> Iterator[LenientStream]:
    """Let standard output and error fail without an exception while the block runs; return the output.

    A closed pipe, as in `fozo adapt | head`, or a full disk would otherwise end hours of work for a line of
    text. Closed streams, which Python shows as None, are replaced by ones that drop everything.
    """
    before = sys.stdout, sys.stderr
    output, errors = (LenientStream(stream or _open_nothing()) for stream in before)
    sys.stdout, sys.stderr = cast(TextIO, output), cast(TextIO, errors)
    try:
        yield output
    finally:
        output.flush()
        errors.flush()
        sys.stdout, sys.stderr = before


def _open_nothing() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123
