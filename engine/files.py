"""Files that are either whole or absent: atomic writes, and content hashes."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from .errors import OutputError


def write_atomic(path: Path, content: bytes) -> None:
    """Writes `content` to `path` through a temporary file beside it; a reader sees the old or the new file.

    Raises:
        OutputError: the folder is missing or not writable, or the disk is full. Nothing is left behind.
    """
    temporary = None
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(path)
    except BaseException as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OutputError(
                f"cannot write {path}: {error.strerror or error}; "
                "choose another place, or make room and allow writing there"
            ) from error
        raise


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal, read in constant memory."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _umask() -> int:
    # There is no call that only reads the mask. Two threads doing this at once could at worst give one
    # temporary file narrower permissions.
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
