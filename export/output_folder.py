"""Folders that a command writes: new ones, or its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

from ..engine.errors import OutputError


def check_output_folder(
    folder: Path, own_names: Iterable[str], content: str, overwrite: bool, advice: str = "name a new folder"
) -> None:
    """Check that a folder may be written to: it is new, empty, or has the same kind of content.

    Args:
        folder: to write to. Hidden files in it do not count.
        own_names: of the files and folders that are written.
        content: what they are, for messages.
        overwrite: whether such content may be replaced.
        advice: what to do if there is other content.

    Raises:
        OutputError: it may not.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise OutputError(f"expected a folder to write to, found a file: {folder}")
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    if names - set(own_names):
        raise OutputError(f"{folder} has other content; {advice}")
    if names and not overwrite:
        raise OutputError(
            f"{folder} has a {content}, or a part of one; replace it with --overwrite, or name another folder"
        )


def swap_content(new: Path, folder: Path, names: Sequence[str]) -> None:
    """Move files and folders to a folder in place of those of the same kind that it has.

    They are renamed one after the other. If that fails or is interrupted, all old ones are put back. The
    first name goes first and comes last: a process that is killed in between leaves a folder without it, so
    nobody takes a mixture of old and new for complete.

    Args:
        new: complete, on the file system of `folder`. Old entries are left in it.
        folder: to be changed; made if it is missing. Entries of other names stay.
        names: of the entries; first the one without which nobody reads the others.

    Raises:
        OSError: an entry cannot be moved.
    """
    old = new / ".replaced"
    old.mkdir()
    folder.mkdir(exist_ok=True)
    moves = [(folder, old, name) for name in names] + [(new, folder, name) for name in reversed(names)]
    with ExitStack() as undo:
        for source, target, name in moves:
            if (source / name).exists():
                (source / name).rename(target / name)
                undo.callback((target / name).rename, source / name)
        undo.pop_all()
