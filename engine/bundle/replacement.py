"""Replacing the content of a bundle so that a whole one, the old or the new, is there at every moment.

No file of the old bundle is touched before the new manifest is in place, and a file is only replaced whole.
So the new files come in under names made of their hashes, and a first manifest that names these takes effect.
Then they get their plain names as well, and a second manifest names those. A process that is killed anywhere
leaves a whole bundle and further files, which the next replacement removes.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ..files import FOLDER_LOCK, hold_lock, remove_dead_folder, sync_file, sync_folder, write_atomic
from .bundle import ADDED_FILE, FIRST_FILES, MANIFEST, Bundle, explain_lock
from .manifest import GraphEntry, Manifest

_TEMPORARY = re.compile(
    r"\..+\.[a-z0-9_]{8}\.tmp"
)  # of files.write_atomic, and folders of create.folder_beside


def is_leftover(name: str) -> bool:
    """Return true if only a killed process of fozo can have left a file of this name unlisted in a bundle."""
    return name == FOLDER_LOCK or bool(ADDED_FILE.fullmatch(name) or _TEMPORARY.fullmatch(name))


def replace_content(source: Path, target: Path) -> None:
    """Move the files of a complete bundle to another folder, empty or with a bundle, in place of its content.

    Args:
        source: folder of the new bundle, on the same file system.
        target: folder that receives it.

    Raises:
        OutputError: another process writes the bundle at this moment, or a manifest cannot be written.
        OSError: a file cannot be moved.
    """
    manifest = Bundle.open(source).manifest
    interim = {name: _name_by_content(name, entry.sha256) for name, entry in manifest.files.items()}
    with hold_lock(target / FOLDER_LOCK, explain_lock(target)):
        old = Bundle.open(target).list_files() if (target / MANIFEST).exists() else []
        for name, alias in interim.items():
            (source / name).replace(target / alias)
        sync_folder(target)
        write_atomic(target / MANIFEST, _rename_files(manifest, interim).to_json())
        for name, alias in interim.items():
            _duplicate(target / alias, target / name)
        sync_folder(target)
        write_atomic(target / MANIFEST, manifest.to_json())
        _remove_others(target, {*manifest.files, MANIFEST, FOLDER_LOCK}, {*old, *FIRST_FILES})


def _name_by_content(name: str, sha256: str) -> str:
    path = Path(name)
    return f"{path.stem}-{sha256[:8]}{path.suffix}"


def _rename_files(manifest: Manifest, names: Mapping[str, str]) -> Manifest:
    """Return the manifest of a new bundle with other file names; there are no source statistics yet."""

    def rename(graphs: Mapping[str, GraphEntry]) -> dict[str, GraphEntry]:
        return {key: replace(graph, file=names[graph.file]) for key, graph in graphs.items()}

    text = manifest.text
    return replace(
        manifest,
        graphs=rename(manifest.graphs),
        pull_backs=rename(manifest.pull_backs),
        head=names[manifest.head],
        heads={key: replace(head, file=names[head.file]) for key, head in manifest.heads.items()},
        text=text and replace(text, file=names[text.file], vocabulary=names[text.vocabulary]),
        files={names[name]: entry for name, entry in manifest.files.items()},
    )


def _duplicate(path: Path, other: Path) -> None:
    """Give a file a second name, replacing what is there, by a link or else by a copy."""
    temporary = other.with_name(f".{other.name}.interim0.tmp")
    temporary.unlink(missing_ok=True)
    try:
        os.link(path, temporary)
    except OSError:  # FAT and some network file systems have no links
        shutil.copyfile(path, temporary)
        sync_file(temporary)
    temporary.replace(other)


def _remove_others(folder: Path, used: set[str], replaced: set[str]) -> None:
    """Remove files that were replaced, and what killed processes have left; what is in use is locked."""
    for entry in folder.iterdir():
        if entry.name in used or not (entry.name in replaced or is_leftover(entry.name)):
            continue
        if entry.is_dir():
            remove_dead_folder(entry)
        else:
            entry.unlink(missing_ok=True)
