"""Folders near the one that was named, where the data lie one level deeper or higher than expected."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

_LEVELS = 2  # how far to look, below and above
_NAMED = 3


def suggest_folder(folder: Path, content: str) -> str:
    """Return an advice to name the folder that holds `content`, or an empty text if none is near."""
    below = [path for depth in range(1, _LEVELS + 1) for path in folder.glob(f"{'*/' * depth}{content}")]
    above = [parent / content for parent in list(folder.resolve().parents)[:_LEVELS]]
    return advise_folders([path.parent for path in (*below, *above) if path.exists()])


def advise_folders(folders: Iterable[Path]) -> str:
    """Return an advice to name one of some folders, or an empty text if there are none."""
    names = [str(folder) for folder in dict.fromkeys(folders)]
    if not names:
        return ""
    more = ", …" if len(names) > _NAMED else ""
    return f". What was expected lies in {' and in '.join(names[:_NAMED])}{more}: name that folder"
