"""Identifiers and names of classes in the order of the logits: ImageNet's, or those of the user's list."""

from __future__ import annotations

from pathlib import Path

from timm.data import ImageNetInfo, infer_imagenet_subset

from ..engine.errors import ExportError

Labels = tuple[str, ...]


def find_imagenet_classes(classes: int) -> tuple[Labels, Labels] | None:
    """Return identifiers and names if the number of classes is that of an ImageNet subset, else None."""
    subset = infer_imagenet_subset({"num_classes": classes})
    if subset is None:
        return None
    info = ImageNetInfo(subset)
    return tuple(info.label_names()), tuple(info.label_descriptions())


def read_classes(path: Path, classes: int) -> tuple[Labels, Labels]:
    """Read identifiers and names from a text file, one class per line in the order of the logits.

    The first word of a line is the identifier (the folder name in a data set), the remaining words are the
    name.

    Raises:
        ExportError: the file cannot be read, has another number of lines, or an identifier twice.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ExportError(f"cannot read the classes from {path}: {error}") from error
    fields = [line.split(maxsplit=1) for line in lines]
    identifiers = tuple(words[0] for words in fields)
    if len(identifiers) != classes or len(set(identifiers)) != classes:
        raise ExportError(
            f"expected {classes} distinct classes, one per line, in {path}; found {len(identifiers)} "
            f"lines with {len(set(identifiers))} distinct identifiers"
        )
    return identifiers, tuple(words[-1] for words in fields)
