"""Lists in text files, one entry per line, as people and programs write them."""

from __future__ import annotations

import io
from pathlib import Path

from ..engine.errors import InputError, reason
from ..engine.ordinary_files import read_limited

_MAX_BYTES = 1 << 28


def read_entries(path: Path, kind: str) -> list[tuple[int, str]]:
    """Return the entries of a list with the numbers of their lines.

    Byte-order marks, all ends of lines, space around entries, empty lines, and comments (`#` alone, or
    followed by a space) make no difference.

    Args:
        path: text in UTF-8.
        kind: description of the list for messages, such as `list of images`.

    Raises:
        InputError: the file cannot be read, or is not text in UTF-8.
    """
    try:
        text = read_limited(path, _MAX_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"cannot read the {kind} {path}: {reason(error)}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"cannot read the {kind} {path}: {reason(error)}; expected text in UTF-8") from error
    stream = io.StringIO(text, newline=None)  # splits at ends of lines alone, unlike `splitlines`
    lines = [(number, line.strip()) for number, line in enumerate(stream, 1)]
    return [(number, line) for number, line in lines if line and line != "#" and not line.startswith("# ")]
