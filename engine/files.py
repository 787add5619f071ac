"""Files that are either whole or absent: atomic writes, and content hashes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from pathlib import Path

from .errors import OutputError


def write_atomic(path: Path, content: bytes) -> None:
    """Write `content` to `path` through a temporary file beside it; a reader sees the old or the new file.

    Raises:
        OutputError: the folder is missing or not writable, or the disk is full. Nothing is left behind.
    """
    temporary = _beside(path)
    try:
        with temporary.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        # Gone if all went well, and never created if the folder is missing.
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Check that `path` can be written, before long work is done for it; leaves no trace.

    Raises:
        OutputError: it is a folder, or a file cannot be created beside it.
    """
    if path.is_dir():
        raise OutputError(f"cannot write {path}: it is a folder; name a file")
    probe = _beside(path)
    try:
        probe.open("xb").close()
        probe.unlink()
    except OSError as error:
        raise _cannot_write(path, error) from error


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal, read in constant memory."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sha256_of_parts(*parts: str) -> str:
    """One SHA-256, in hexadecimal, of several texts in order."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _beside(path: Path) -> Path:
    """Return a name in the same folder that nobody else uses."""
    return path.parent / f".{path.name}.{secrets.token_hex(4)}.tmp"


def _cannot_write(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"cannot write {path}: {error.strerror or error}; "
        "choose another place, or make room and allow writing there"
    )
