"""Lists of classes to predict among, as people write them."""

from __future__ import annotations

from pathlib import Path

from ...engine.bundle.manifest import Manifest
from ...engine.errors import InputError


def read_class_list(path: Path, manifest: Manifest) -> list[int]:
    """Return the indices of the classes that a file lists, in ascending order.

    Args:
        path: text with one identifier or index per line.
        manifest: of the bundle whose classes are meant.

    Raises:
        InputError: the file cannot be read, is empty, or names a class that the bundle lacks.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the list of classes {path}: {error}") from error
    indices = {str(index): index for index in range(manifest.classes)}
    indices |= {name: index for index, name in enumerate(manifest.class_ids or ())}
    unknown = [line for line in lines if line not in indices]
    if unknown or not lines:
        raise InputError(
            f"expected identifiers or indices of classes of {manifest.model}, one per line, in {path}, found "
            f"{repr(unknown[0]) if unknown else 'none'}; its classes are named like {next(reversed(indices))}"
        )
    return sorted({indices[line] for line in lines})
