"""The task of a Ray worker: unpack the bundle, once per machine, and compute a cell."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...engine.bundle.bundle import Bundle
from ...engine.errors import BundleError, ComputeError, FozoError, reason
from ...engine.records import load_record
from .cell import Job, compute


def compute_on(host: str, request: Mapping[str, Any], threads: int, shared: Sequence[Any]) -> dict[str, Any]:
    """Compute a cell.

    Args:
        host: name of this machine.
        request: the job.
        threads: threads that compute.
        shared: one reference to the files of the bundle by name.

    Returns:
        The results as `document`, or the reason of the failure as `error`.

    Raises:
        ComputeError: the cell may succeed in another attempt, or on another machine.
    """
    import ray

    job = load_record(Job, request, "job")
    try:
        return {"document": compute(job, threads, unpack_bundle(job.cell.bundle, lambda: ray.get(shared[0])))}
    except ComputeError:
        raise
    except FozoError as error:
        return {"error": f"{error} (on the machine {host})"}


def unpack_bundle(sha256: str, fetch: Callable[[], Mapping[str, bytes]], home: Path | None = None) -> Path:
    """Return the folder of a bundle on this machine, after creating it if necessary.

    Processes may call this concurrently; none of them sees an incomplete folder.

    Args:
        sha256: SHA-256 of the bundle's manifest.
        fetch: returns the bundle's files by name; called only if there is no complete folder.
        home: parent of such folders; default: a folder in the system's folder for temporary files.

    Raises:
        BundleError: the folder cannot be written, or `fetch` returned another bundle.
    """
    owner = getattr(os, "getuid", lambda: "user")()
    home = home or Path(tempfile.gettempdir()) / f"fozo-bundles-{owner}"
    target = home / sha256
    if _is_complete(target, sha256):
        return target
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home, prefix=".new-") as temporary:
            new = Path(temporary, "bundle")
            new.mkdir()
            for name, content in fetch().items():
                (new / name).write_bytes(content)
            _move_into_place(new, target, sha256)
    except OSError as error:
        raise BundleError(
            f"cannot unpack the bundle to {home} ({reason(error)}); make room there, or name another folder "
            "with TMPDIR"
        ) from error
    if not _is_complete(target, sha256):
        raise BundleError(
            f"expected the bundle {sha256[:12]}… in {target}, found another; start the sweep again"
        )
    return target


def _move_into_place(new: Path, target: Path, sha256: str) -> None:
    """Rename `new` to `target`, unless another process was faster; replace a damaged folder."""
    with contextlib.suppress(OSError):  # the target exists
        new.rename(target)
    if not _is_complete(target, sha256):
        with contextlib.suppress(OSError):  # another process does the same
            target.rename(new.with_name("damaged"))
            new.rename(target)


def _is_complete(folder: Path, sha256: str) -> bool:
    try:
        bundle = Bundle.open(folder)
        return bundle.sha256 == sha256 and all(bundle.file(name).is_file() for name in bundle.manifest.files)
    except BundleError:
        return False
