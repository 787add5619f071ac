"""Folders that a command writes: new ones, or its own."""

from __future__ import annotations

from collections.abc import Iterable
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
