"""Creating a bundle: written beside its place first, and moved there when it is complete."""

from __future__ import annotations

import glob
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ..errors import BundleError, OutputError, reason
from ..files import FOLDER_LOCK, hash_file, hold_lock, remove_dead_folder, sync_file, sync_folder
from .bundle import FIRST_FILES, MANIFEST, Bundle
from .manifest import FileEntry, Manifest
from .replacement import is_leftover, replace_content


def create(
    path: Path,
    manifest: Manifest,
    write: Mapping[str, Callable[[Path], object]],
    *,
    overwrite: bool = False,
) -> Bundle:
    """Write a new bundle: in a temporary folder first, moved into place when it is complete.

    Where a bundle is replaced, a whole one is at `path` at every moment: the old or the new one. A symbolic
    link at `path` is followed.

    Args:
        path: where the bundle shall be.
        manifest: without `files`, which is filled in here.
        write: for each file of the bundle, what writes it to a given path.
        overwrite: replace a bundle that is already there. Anything else is never replaced.

    Raises:
        OutputError: something is in the way, or the folder cannot be written; nothing is changed then.
        BundleError: the manifest could not be read again; nothing is changed then.
    """
    check_writable(path, overwrite=overwrite)
    target = path.resolve()
    with folder_beside(path) as folder:
        files = {}
        for name, writer in write.items():
            writer(folder / name)
            sync_file(folder / name)
            files[name] = FileEntry(hash_file(folder / name), (folder / name).stat().st_size)
        content = replace(manifest, files=files).to_checked_json(path / MANIFEST)
        (folder / MANIFEST).write_bytes(content)
        sync_file(folder / MANIFEST)
        if target.exists():
            replace_content(folder, target)
        else:
            folder.rename(target)
            sync_folder(target.parent)
    return Bundle.open(path)


@contextmanager
def folder_beside(path: Path) -> Iterator[Path]:
    """Provide a temporary folder on the file system of `path`, removed afterwards.

    It lies in `path` where that is a folder, and beside it otherwise. Folders that a killed process has left
    there are removed first.

    Raises:
        OutputError: it cannot be made, or something in the block cannot be written.
    """
    path = path.resolve()
    parent = path if path.is_dir() else path.parent
    pattern = f".{glob.escape(path.name)}.*.tmp"
    try:
        for entry in (entry for folder in {parent, path.parent} for entry in folder.glob(pattern)):
            if entry.is_dir():
                remove_dead_folder(entry)
        with (
            tempfile.TemporaryDirectory(dir=parent, prefix=f".{path.name}.", suffix=".tmp") as temporary,
            hold_lock(Path(temporary, FOLDER_LOCK), f"{temporary} is in use"),
        ):
            folder = Path(temporary, path.name)
            folder.mkdir()
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)  # while it is locked
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {reason(error)}; choose another place, or make room there"
        ) from error


def check_writable(path: Path, *, overwrite: bool) -> None:
    """Check that a bundle can be created at `path`, before any long work is done for it.

    Raises:
        OutputError: the parent folder is missing or not writable, or something is in the way.
    """
    if path.exists() and (hint := _find_obstacle(path, overwrite)):
        raise OutputError(f"{path} already exists; {hint}")
    path = path.resolve()
    try:
        tempfile.TemporaryDirectory(
            dir=path if path.is_dir() else path.parent, prefix=f".{path.name}.", suffix=".tmp"
        ).cleanup()
    except OSError as error:
        raise OutputError(
            f"cannot create {path}: {reason(error)}; choose another place with --out"
        ) from error


def _find_obstacle(path: Path, overwrite: bool) -> str | None:
    """Return advice on what occupies `path`, or None if it may be replaced.

    A folder may be replaced that is empty but for what a killed export has left, and with `overwrite` a
    folder that holds a bundle and nothing else.
    """
    elsewhere = "choose another place with --out"
    if not path.is_dir():
        return elsewhere
    names = {entry.name for entry in path.iterdir()}
    if all(is_leftover(name) for name in names):
        return None
    try:
        expected = {*Bundle.open(path).list_files(), *FIRST_FILES}
        foreign = sorted(name for name in names - expected if not is_leftover(name))
    except BundleError:
        return elsewhere
    if foreign:
        return f"it holds {foreign[0]}, which is no part of the bundle: move it away, or {elsewhere}"
    return None if overwrite else f"pass --overwrite to replace it, or {elsewhere}"
