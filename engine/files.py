"""Files that are either complete or absent: atomic writes, locks, content hashes, arrays without pickle."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import io
import math
import os
import re
import secrets
import shutil
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from .errors import OutputError, escape_controls, reason
from .ordinary_files import check_ordinary

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
DEAD_SECONDS = 3600
FOLDER_LOCK = ".lock"  # in a folder that one process at a time may write


def write_atomic(path: Path, content: bytes) -> None:
    """Write `content` to `path` through a temporary file beside it; a reader sees the old or the new file.

    A symbolic link stays one: the file that it names is replaced.

    Raises:
        OutputError: the folder is missing or not writable, the disk is full, or `path` is a device, a pipe or
            a folder. Nothing is left behind.
    """
    _check_replaceable(path)
    path = _follow_links(path)
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


def sync_file(path: Path) -> None:
    """Make the content of a file survive a loss of power.

    Raises:
        OSError: the file cannot be opened, or the disk is full.
    """
    with path.open("rb+") as stream:
        os.fsync(stream.fileno())


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a loss of power, where the system can do that."""
    with contextlib.suppress(OSError):  # Windows opens no folders, and some file systems refuse
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def hold_lock(path: Path, busy: str) -> Iterator[None]:
    """Hold a lock file while the block runs. However a process ends, the system releases its locks.

    Where the file system has no locks, or the folder cannot be written, the block runs without one.

    Args:
        path: the lock file; removed afterwards.
        busy: the message if another process holds it.

    Raises:
        OutputError: another process holds it.
    """
    stream = _open_locked(path, busy)
    try:
        yield
    finally:
        if stream is not None:
            # Removed while it is still locked: nobody can have taken it in between.
            with contextlib.suppress(OSError):
                path.unlink()
            stream.close()


@contextlib.contextmanager
def claim_file(path: Path | None) -> Iterator[None]:
    """Keep other processes of fozo from writing a file while the block runs; None and devices are free.

    What killed writers have left beside the file is removed.

    Raises:
        OutputError: another process has claimed the file.
    """
    if path is None or not is_replaceable(path):
        yield
        return
    target = path.resolve()
    busy = f"another process is writing {path}; wait until it ends, or name another file"
    with hold_lock(target.with_name(f".{target.name}.lock"), busy):
        remove_temporaries(target)
        yield


def _open_locked(path: Path, busy: str) -> IO[bytes] | None:
    """Return the open and locked file, or None where there are no locks."""
    while True:
        try:
            if path.exists():
                check_ordinary(path)
            stream = path.open("ab")
        except OSError:  # the writing that follows will say why
            return None
        try:
            _lock(stream)
            if path.exists() and os.path.samestat(os.fstat(stream.fileno()), path.stat()):
                return stream
        except (BlockingIOError, PermissionError) as error:
            stream.close()
            raise OutputError(busy) from error
        except OSError:
            stream.close()
            return None
        stream.close()  # its former holder has removed it: make a new one


def _lock(stream: IO[bytes]) -> None:
    """Lock a file without waiting.

    Raises:
        BlockingIOError, PermissionError: another process, or another opening of the file, holds the lock.
        OSError: the file system has no locks.
    """
    if sys.platform == "win32":
        msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)


def remove_dead_folder(folder: Path) -> None:
    """Remove a temporary folder whose process was killed: nobody holds its lock any more.

    Without a lock it was made at this moment, or its process was killed at once; only age tells.
    """
    lock = folder / FOLDER_LOCK
    with contextlib.suppress(OSError, OutputError):
        if lock.is_file() and _locks_exclude(folder.parent):
            with hold_lock(lock, "in use"):
                for entry in folder.iterdir():
                    if entry != lock:
                        shutil.rmtree(entry)
            folder.rmdir()
        elif time.time() - folder.stat().st_mtime > DEAD_SECONDS:
            folder.rmdir()  # if it is empty


def _locks_exclude(folder: Path) -> bool:
    """Return true if a lock in this folder keeps others out; some network file systems have none."""
    probe = _choose_temporary(folder / "lock")
    try:
        with hold_lock(probe, ""), hold_lock(probe, ""):
            return False
    except OutputError:
        return True


def remove_temporaries(path: Path) -> None:
    """Remove what killed writers of `path` have left beside it; only for the holder of a lock on `path`."""
    path = _follow_links(path)
    for entry in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        if re.fullmatch(r"[0-9a-f]{8}", entry.name[len(path.name) + 2 : -len(".tmp")]):
            with contextlib.suppress(OSError):
                entry.unlink()


def check_writable(path: Path) -> None:
    """Check that `path` can be written, before long work is done for it; leaves no trace.

    Raises:
        OutputError: it is a folder, a device or a pipe, or a file cannot be created beside it.
    """
    _check_replaceable(path)
    path = _follow_links(path)
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
    """Return all arrays of an `.npz` file that `to_npz` wrote; they take no more memory than the file has.

    Raises:
        ValueError: the file cannot be read or is no uncompressed `.npz` of plain arrays; the message says
            why.
    """
    try:
        check_ordinary(path)
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if sum(member.file_size for member in members) > path.stat().st_size:
                raise ValueError("its arrays are larger than the file: expected them uncompressed")
            return {member.filename.removesuffix(".npy"): _read_array(archive, member) for member in members}
    except Exception as error:  # zipfile and NumPy raise a dozen kinds on damaged files
        raise ValueError(escape_controls(f"{type(error).__name__}: {error}")) from error


def _read_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    """Return one array, after checking that its header declares as many bytes as there are."""
    if member.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{member.filename} is compressed")
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        if version not in _HEADERS:
            raise ValueError(f"{member.filename} has the unknown format {version}")
        shape, is_fortran, dtype = _HEADERS[version](stream)
        size, declared = member.file_size - stream.tell(), math.prod(shape) * dtype.itemsize
        if dtype.hasobject or not dtype.itemsize or declared != size:
            raise ValueError(
                f"{member.filename} has {size:,} bytes, expected {declared:,} for {dtype} of shape {shape}"
            )
        array = np.empty(math.prod(shape), dtype)
        array.view(np.uint8)[:] = np.frombuffer(stream.read(), np.uint8)
    return array.reshape(shape, order="F" if is_fortran else "C")


def is_replaceable(path: Path) -> bool:
    """Return false for what is no place for a new file: devices, pipes, sockets."""
    return path.is_file() or path.is_dir() or not path.exists()


def _check_replaceable(path: Path) -> None:
    if path.is_dir():
        raise OutputError(f"cannot write {path}: it is a folder; name a file")
    if not is_replaceable(path):
        raise OutputError(f"cannot write {path}: it is a device or a pipe; name a file")


def _follow_links(path: Path) -> Path:
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def _choose_temporary(path: Path) -> Path:
    """Return a name in the same folder that nobody else uses."""
    return path.parent / f".{path.name}.{secrets.token_hex(4)}.tmp"


def _create_error(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"cannot write {path}: {reason(error)}; choose another place, or make room and allow writing there"
    )
