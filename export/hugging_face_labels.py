"""Names of classes in the `config.json` of Hugging Face's transformers."""

from __future__ import annotations

import re
from pathlib import Path

from ..data.class_names import Labels
from ..engine.errors import ExportError, has_controls
from .hugging_face_file import read_settings

_PLACEHOLDER = re.compile(r"LABEL_\d+")  # where nobody named the classes


def read_class_labels(path: Path, classes: int) -> tuple[Labels | None, Labels] | None:
    """Return identifiers and names of the classes in the order of the logits.

    Names are identifiers too, if no two are equal; otherwise there are no identifiers.

    Args:
        path: the `config.json`; it may be missing.
        classes: number of classes.

    Returns:
        None if the file is missing, or has no names but those that transformers makes up.

    Raises:
        ExportError: the file is damaged, or its names are of other classes.
    """
    settings = read_settings(path) or {}
    labels = settings.get("id2label")
    if labels is None or "model_type" not in settings:
        return None
    numbers = [str(index) for index in range(classes)]
    if not isinstance(labels, dict) or labels.keys() != {*numbers} or not all(map(_is_name, labels.values())):
        raise ExportError(
            f"{path}, which lies beside the weights: expected names of the {classes} classes in id2label, by "
            f"number from 0 to {classes - 1}, each one line; mend it, move it away, or name the classes with "
            "--classes FILE"
        )
    names = tuple(labels[number].strip() for number in numbers)
    if all(map(_PLACEHOLDER.fullmatch, names)):
        return None
    return (names if len(set(names)) == classes else None), names


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip()) and not has_controls(value)
