"""Lists of classes to predict among, as people write them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from ...data.text_lists import read_entries
from ...engine.bundle.manifest import Manifest
from ...engine.errors import InputError


def read_class_list(path: Path, manifest: Manifest) -> list[int]:
    """Return the indices of the classes that a file lists, in ascending order.

    Args:
        path: text with one identifier, name or index per line.
        manifest: of the bundle whose classes are meant.

    Raises:
        InputError: the file cannot be read, is empty, or names a class that the bundle lacks.
    """
    lines = read_entries(path, "list of classes")
    indices = _index_names(manifest)
    unknown = [line for line in lines if line[1] not in indices]
    if unknown or not lines:
        content = f"{unknown[0][1]!r} in line {unknown[0][0]}" if unknown else "none"
        raise InputError(
            f"expected identifiers, names or indices of classes of {manifest.model}, one per line, in "
            f"{path}, found {content}; its classes are named like {(manifest.class_ids or ['0'])[-1]}"
        )
    return sorted({indices[text] for _, text in lines})


def _index_names(manifest: Manifest) -> dict[str, int]:
    """Return the class that each text stands for: its index, its name if no other class has it, or its id."""
    names = Counter(manifest.class_names or ())
    named = enumerate(manifest.class_names or ())
    indices = {name: index for index, name in named if names[name] == 1}
    indices |= {str(index): index for index in range(manifest.classes)}
    return indices | {name: index for index, name in enumerate(manifest.class_ids or ())}
