"""The prediction for one image, as a value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...engine.bundle.manifest import Manifest


@dataclass(frozen=True)
class Guess:
    """A class that an image may show.

    Attributes:
        class_id: the bundle's identifier of the class, or else its index in digits.
        class_name: the bundle's name of the class, or else `class_id`.
        class_index: index among all classes of the bundle, even if only some of them are predicted.
        confidence: softmax of the adapted logits, in 0..1.
    """

    class_id: str
    class_name: str
    class_index: int
    confidence: float


@dataclass(frozen=True)
class Row:
    """The prediction for one image.

    Attributes:
        path: path of the image, as the caller wrote it.
        top: the likeliest classes, best first; empty if there is an error.
        batch: number of the batch, counted from 1 since the adapter's state began; None if the image was in
            none.
        error: why there is no prediction, or None.
    """

    path: str
    top: tuple[Guess, ...]
    batch: int | None
    error: str | None = None


def list_guesses(manifest: Manifest, classes: Sequence[int] | None) -> list[Guess]:
    """Return a guess of confidence 0 for every predicted class, in the order of the logits.

    Args:
        manifest: of the bundle.
        classes: indices of the predicted classes; None is all.
    """
    ids = manifest.class_ids or [str(index) for index in range(manifest.classes)]
    names = manifest.class_names or ids
    indices = range(manifest.classes) if classes is None else classes
    return [Guess(ids[index], names[index], index, 0.0) for index in indices]
