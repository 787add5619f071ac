"""Creating a bundle: written beside its place first, and moved there when it is complete."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ..errors import BundleError, OutputError
from ..files import hash_file
from .bundle import MANIFEST, Bundle
from .manifest import FileEntry, Manifest


def create(
    path: Path,
    manifest: Manifest,
    write: Mapping[str, Callable[[Path], object]],
    *,
    overwrite: bool = False,
) -> Bundle:
    """Write a new bundle: in a temporary folder first, moved into place when it is complete.

    Args:
        path: where the bundle shall be.
        manifest: without `files`, which is filled in here.
        write: for each file of the bundle, what writes it to a given path.
        overwrite: replace a bundle that is already there. Anything else is never replaced.

    Raises:
        OutputError: something is in the way, or the folder cannot be written; nothing is changed then.
    """
    check_writable(path, overwrite=overwrite)
    with folder_beside(path) as temporary:
        folder = temporary / path.name
        folder.mkdir()
        files = {}
        for name, writer in write.items():
            writer(folder / name)
            files[name] = FileEntry(hash_file(folder / name), (folder / name).stat().st_size)
        (folder / MANIFEST).write_bytes(replace(manifest, files=files).to_json())
        _move_into_place(folder, path)
    return Bundle.open(path)


@contextmanager
def folder_beside(path: Path) -> Iterator[Path]:
    """Provide a temporary folder on the file system of `path`, removed afterwards.

    Raises:
        OutputError: it cannot be made, or something in the block cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp") as folder:
            yield Path(folder)
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}; choose another place, or make room there"
        ) from error


def _move_into_place(folder: Path, path: Path) -> None:
    """Move `folder` to `path`; an older bundle there is removed only when that has succeeded."""
    if not path.exists():
        folder.rename(path)
        return
    # Not inside the temporary folder: should even moving it back fail, the old bundle is still there.
    keep = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.old."))
    path.replace(keep / path.name)
    try:
        folder.rename(path)
    except OSError:
        (keep / path.name).replace(path)
        keep.rmdir()
        raise
    shutil.rmtree(keep)


def check_writable(path: Path, *, overwrite: bool) -> None:
    """Check that a bundle can be created at `path`, before any long work is done for it.

    Raises:
        OutputError: the parent folder is missing or not writable, or something is in the way.
    """
    if path.exists() and (hint := _find_obstacle(path, overwrite)):
        raise OutputError(f"{path} already exists; {hint}")
    try:
        probe = tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        shutil.rmtree(probe)
    except OSError as error:
        raise OutputError(
            f"cannot create {path}: {error.strerror or error}; choose another place with --out"
        ) from error


def _find_obstacle(path: Path, overwrite: bool) -> str | None:
    """Return advice on what occupies `path`, or None if it may be replaced.

    An empty folder may be replaced, and with `overwrite` a folder that holds a bundle and nothing else.
    """
    elsewhere = "choose another place with --out"
    names = {entry.name for entry in path.iterdir()} if path.is_dir() else {path.name}
    if path.is_dir() and not names:
        return None
    try:
        foreign = sorted(names - {MANIFEST, *Bundle.open(path).manifest.files})
    except BundleError:
        return elsewhere
    if foreign:
        return f"it holds {foreign[0]}, which is no part of the bundle: move it away, or {elsewhere}"
    return None if overwrite else f"pass --overwrite to replace it, or {elsewhere}"
