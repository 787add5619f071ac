"""Reading of files that may come from strangers: ordinary ones of a bounded size, and JSON data in them."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

MAX_JSON_BYTES = 1 << 30  # results of a thousand long streams
_EXPECTED = "it is a folder, a pipe or a device, expected a file"


def check_ordinary(path: str | os.PathLike[str]) -> None:
    """Check that a path is an ordinary file: opening a pipe waits for a writer, and a device may never end.

    Raises:
        OSError: it is missing, or something else.
    """
    if not stat.S_ISREG(Path(path).stat().st_mode):
        raise OSError(errno.EINVAL, _EXPECTED, os.fspath(path))


def read_limited(path: Path, limit: int) -> bytes:
    """Return the content of an ordinary file.

    Raises:
        OSError: it cannot be read, is no ordinary file, or has more than `limit` bytes.
    """
    check_ordinary(path)
    with path.open("rb") as stream:
        content = stream.read(limit + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"expected at most {limit:,} bytes, found more", str(path))
    return content


def parse_json(content: bytes) -> Any:
    """Return JSON data.

    Raises:
        ValueError: the content is no JSON in UTF-8, or is nested too deeply.
    """
    try:
        return json.loads(content.decode("utf-8-sig"))
    except RecursionError as error:
        raise ValueError("its values are nested too deeply") from error


def read_json(path: Path, limit: int = MAX_JSON_BYTES) -> Any:
    """Return the JSON data of an ordinary file.

    Raises:
        OSError: it cannot be read, is no ordinary file, or has more than `limit` bytes.
        ValueError: it is no JSON in UTF-8, or is nested too deeply.
    """
    return parse_json(read_limited(path, limit))
