"""Files that are either complete or absent: atomic writes, content hashes, and arrays without pickle."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import secrets
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import OutputError


def write_atomic(path: Path, content: bytes) -> None:
    """Write `content` to `path` through a temporary file beside it; a reader sees the old or the new file.

    Raises:
        OutputError: the folder is missing or not writable, or the disk is full. Nothing is left behind.
    """
    temporary = _choose_temporary(path)
    try:
        with temporary.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        raise _create_error(path, error) from error
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
    probe = _choose_temporary(path)
    try:
        probe.open("xb").close()
        probe.unlink()
    except OSError as error:
        raise _create_error(path, error) from error


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal, read in constant memory."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def hash_texts(*texts: str) -> str:
    """Return one SHA-256, in hexadecimal, of several texts in order."""
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


def to_npz(**arrays: NDArray[Any]) -> bytes:
    """Return arrays as the content of an uncompressed `.npz` file; equal arrays give equal bytes."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, np.asarray(array, order="C"), allow_pickle=False)
            # A fixed date: numpy.savez would write the time of day into the file, and so into its hash.
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0)), member.getvalue())
    return stream.getvalue()


def from_npz(path: Path) -> dict[str, NDArray[Any]]:
    """Return all arrays of an `.npz` file.

    Raises:
        ValueError: the file cannot be read or is no `.npz` of plain arrays; the message says why.
    """
    try:
        with path.open("rb") as stream, np.lib.npyio.NpzFile(stream, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # zipfile and NumPy raise a dozen kinds on damaged files
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _choose_temporary(path: Path) -> Path:
    """Return a name in the same folder that nobody else uses."""
    return path.parent / f".{path.name}.{secrets.token_hex(4)}.tmp"


def _create_error(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"cannot write {path}: {error.strerror or error}; "
        "choose another place, or make room and allow writing there"
    )
