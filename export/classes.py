"""Which class each logit stands for: ImageNet's WordNet identifiers and names, or the user's own list."""

from __future__ import annotations

from pathlib import Path

from timm.data import ImageNetInfo, infer_imagenet_subset

from ..engine.errors import ExportError

Labels = tuple[str, ...]


def imagenet_classes(classes: int) -> tuple[Labels, Labels] | None:
    """Identifiers and names where the number of classes is that of a known ImageNet subset, else None."""
    subset = infer_imagenet_subset({"num_classes": classes})
    if subset is None:
        return None
    info = ImageNetInfo(subset)
    return tuple(info.label_names()), tuple(info.label_descriptions())


def read_classes(path: Path, classes: int) -> tuple[Labels, Labels]:
    """Identifiers and names from a text file: one class per line in the order of the logits.

    The first word of a line is the identifier (the folder name in a data set), the rest is the name.

    Raises:
        ExportError: the file cannot be read, has another number of lines, or an identifier twice.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ExportError(f"cannot read the classes from {path}: {error}") from error
    parts = [line.split(maxsplit=1) for line in lines]
    identifiers = tuple(part[0] for part in parts)
    if len(identifiers) != classes or len(set(identifiers)) != classes:
        raise ExportError(
            f"expected {classes} distinct classes, one per line, in {path}; found {len(identifiers)} "
            f"lines with {len(set(identifiers))} distinct identifiers"
        )
    return identifiers, tuple(part[-1] for part in parts)
