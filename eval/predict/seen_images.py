"""A memory of the images that were taken from a watched folder, kept in a file from run to run."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from ...engine.errors import InputError, reason
from ...engine.files import write_atomic
from ...engine.ordinary_files import read_json

SCHEMA = 1
SUFFIX = ".seen.json"


class SeenImages:
    """Names of images relative to the watched folder, so that the folder may move."""

    def __init__(self, path: Path, folder: str | os.PathLike[str]) -> None:
        """Read the file, if it exists; images that no longer do are forgotten.

        Args:
            path: the file.
            folder: the watched folder, as it is given to `Watch`.

        Raises:
            InputError: the file cannot be read, or holds something else.
        """
        self.path, self._folder = path, os.fspath(folder)
        self.is_new = not path.exists()
        names = [] if self.is_new else _read_names(path)
        self._names = dict.fromkeys(name for name in names if os.path.exists(self._join(name)))  # noqa: PTH110

    def __len__(self) -> int:
        return len(self._names)

    @property
    def paths(self) -> list[str]:
        """The images as the watch spells them."""
        return [self._join(name) for name in self._names]

    def add(self, paths: Iterable[str]) -> None:
        """Remember images, given as the watch spells them."""
        self._names.update(dict.fromkeys(os.path.relpath(path, self._folder) for path in paths))

    def _join(self, name: str) -> str:
        return os.path.join(self._folder, name)  # noqa: PTH118 (as os.scandir)

    def save(self) -> None:
        """Write the file, atomically.

        Raises:
            OutputError: it cannot be written.
        """
        # Names of files are bytes: JSON holds those that are not text as escapes.
        content = json.dumps({"schema": SCHEMA, "seen": list(self._names)}, indent=0)
        write_atomic(self.path, f"{content}\n".encode())


def _read_names(path: Path) -> list[str]:
    try:
        content = read_json(path)
        names = content["seen"]
        if content["schema"] != SCHEMA or not all(isinstance(name, str) for name in names):
            raise ValueError("another schema")
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"expected the names of images that were seen before in {path}, found something else "
            f"({reason(error)}); remove it, and all images in the folder are taken again"
        ) from error
    return list(names)
