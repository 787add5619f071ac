"""What a worker of a Ray cluster does for a cell: it unpacks the bundle, once per machine, and computes."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...engine.bundle.bundle import Bundle
from ...engine.errors import BundleError, ComputeError, FozoError, reason
from .cell import Job, compute


def compute_on(host: str, request: Mapping[str, Any], threads: int, shared: Sequence[Any]) -> dict[str, Any]:
    """Computes a cell.

    Args:
        host: name of this machine.
        request: the job.
        threads: that compute.
        shared: one reference to the files of the bundle by name.

    Returns:
        Its results as `document`, or as `error` why there are none.

    Raises:
        ComputeError: it may go well another time, or elsewhere.
    """
    import ray

    job = Job.from_json(request)
    try:
        return {"document": compute(job, threads, unpacked(job.cell.bundle, lambda: ray.get(shared[0])))}
    except ComputeError:
        raise
    except FozoError as error:
        return {"error": f"{error} (on the machine {host})"}


def unpacked(sha256: str, fetch: Callable[[], Mapping[str, bytes]], home: Path | None = None) -> Path:
    """The folder of a bundle on this machine: the one that is there already, or a new one.

    Any number of processes may do this at a time; none sees a folder that is not whole.

    Args:
        sha256: of the bundle's manifest.
        fetch: gives the bundle's files by name; only called where there is no whole folder.
        home: the folder for such folders; default: one in the system's folder for temporary files.

    Raises:
        BundleError: it cannot be written, or what was fetched is another bundle.
    """
    owner = getattr(os, "getuid", lambda: "user")()
    home = home or Path(tempfile.gettempdir()) / f"fozo-bundles-{owner}"
    place = home / sha256
    if _whole(place, sha256):
        return place
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home, prefix=".new-") as temporary:
            new = Path(temporary, "bundle")
            new.mkdir()
            for name, content in fetch().items():
                (new / name).write_bytes(content)
            _put(new, place, sha256)
    except OSError as error:
        raise BundleError(
            f"cannot unpack the bundle to {home} ({reason(error)}); make room there, or name another folder "
            "with TMPDIR"
        ) from error
    if not _whole(place, sha256):
        raise BundleError(
            f"expected the bundle {sha256[:12]}… in {place}, found another; start the sweep again"
        )
    return place


def _put(new: Path, place: Path, sha256: str) -> None:
    """Renames `new` to `place`, unless another process was faster; what is damaged there goes away."""
    with contextlib.suppress(OSError):  # there is something
        new.rename(place)
    if not _whole(place, sha256):
        with contextlib.suppress(OSError):  # another process does the same
            place.rename(new.with_name("damaged"))
            new.rename(place)


def _whole(folder: Path, sha256: str) -> bool:
    try:
        bundle = Bundle.open(folder)
        return bundle.sha256 == sha256 and all(bundle.file(name).is_file() for name in bundle.manifest.files)
    except BundleError:
        return False
