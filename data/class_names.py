"""Lists of classes, as people write them: identifiers and names in the order of a model's outputs."""

from __future__ import annotations

from pathlib import Path

from ..engine.errors import InputError

Labels = tuple[str, ...]


def read_class_names(path: Path, classes: int) -> tuple[Labels, Labels]:
    """Read identifiers and names from a text file, one class per line in the order of the logits.

    The first word of a line is the identifier (the folder name in a data set), the remaining words are the
    name.

    Raises:
        InputError: the file cannot be read, has another number of lines, or an identifier twice.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the classes from {path}: {error}") from error
    fields = [line.split(maxsplit=1) for line in lines]
    identifiers = tuple(words[0] for words in fields)
    if len(identifiers) != classes or len(set(identifiers)) != classes:
        raise InputError(
            f"expected {classes} distinct classes, one per line, in {path}; found {len(identifiers)} "
            f"lines with {len(set(identifiers))} distinct identifiers"
        )
    return identifiers, tuple(words[-1] for words in fields)
