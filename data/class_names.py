"""Lists of classes, as people write them: identifiers and names in the order of a model's outputs."""

from __future__ import annotations

from pathlib import Path

from ..engine.errors import InputError
from .text_lists import read_entries

Labels = tuple[str, ...]


def read_class_names(path: Path, classes: int) -> tuple[Labels, Labels]:
    """Read identifiers and names from a text file, one class per line in the order of the logits.

    The first word of a line, or all before its first tab, is the identifier (the folder name in a data set);
    the rest is the name.

    Raises:
        InputError: the file cannot be read, has another number of lines, or an identifier twice.
    """
    entries = read_entries(path, "list of classes")
    fields = [line.split("\t" if "\t" in line else None, maxsplit=1) for _, line in entries]
    identifiers = tuple(words[0].strip() for words in fields)
    lines: dict[str, int] = {}
    for (number, _), identifier in zip(entries, identifiers, strict=True):
        if lines.setdefault(identifier, number) != number:
            raise InputError(
                f"expected distinct classes, one per line, in {path}, found {identifier!r} in lines "
                f"{lines[identifier]} and {number}; end identifiers of several words with a tab"
            )
    if len(identifiers) != classes:
        raise InputError(
            f"expected {classes} distinct classes, one per line, in {path}; found {len(identifiers)} lines"
        )
    return identifiers, tuple(words[-1].strip() for words in fields)
