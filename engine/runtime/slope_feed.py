"""The slopes of a loss, as a pull-back graph reads them beside images and tunables (docs/bundle.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..model import FloatArray, Slopes
from .graph_contract import CLASS_OFFSETS, ENTROPY_WEIGHTS, FEATURES_SLOPES, LOGITS_SLOPES, PULL_BACK

Classes = NDArray[np.int64]
LEFT_OUT = -1e30  # added to a logit: its probability is exactly 0, and everything stays finite


def feed_no_slopes(axes: Mapping[str, Sequence[int]]) -> dict[str, NDArray[Any]]:
    """Return inputs with which a pull-back graph computes a forward alone.

    Args:
        axes: lengths of the axes of `logits` and `features` behind that of the images.
    """
    return {
        PULL_BACK: np.asarray(False),
        LOGITS_SLOPES: np.zeros((0, *axes["logits"]), np.float32),
        FEATURES_SLOPES: np.zeros((0, *axes["features"]), np.float32),
        ENTROPY_WEIGHTS: np.zeros(0, np.float32),
        CLASS_OFFSETS: np.zeros(axes["logits"], np.float32),
    }


def feed_class_offsets(
    count: int, classes: Classes | None, bias: FloatArray | None = None
) -> dict[str, FloatArray]:
    """Return what is added to the logits for the entropies, `[K]`: it leaves out classes, or is a bias.

    Args:
        count: K.
        classes: indices of the classes that are predicted; None is all.
        bias: of a classifier that is an input of the graph, which covers all of its classes, `[K]`.
    """
    if classes is None:
        return {CLASS_OFFSETS: np.zeros(count, np.float32) if bias is None else bias}
    offsets = np.full(count, LEFT_OUT, np.float32)
    offsets[classes] = 0
    return {CLASS_OFFSETS: offsets}


def feed_slopes(
    slopes: Slopes, images: int, axes: Mapping[str, Sequence[int]], classes: Classes | None
) -> dict[str, FloatArray]:
    """Return the slopes as a pull-back graph reads them, float32, one row per image.

    Args:
        slopes: of the loss.
        images: N.
        axes: lengths of the axes of `logits` and `features` behind that of the images.
        classes: indices of the classes that are predicted; None is all.

    Raises:
        InputError: an array is not of the shape that belongs to the outputs.
    """
    logits = np.zeros((images, *axes["logits"]), np.float32)
    columns = slice(None) if classes is None else classes
    logits[:, columns] = _read(LOGITS_SLOPES, slopes.logits, logits[:, columns].shape)
    return {
        LOGITS_SLOPES: logits,
        FEATURES_SLOPES: _read(FEATURES_SLOPES, slopes.features, (images, *axes["features"])),
        ENTROPY_WEIGHTS: _read(ENTROPY_WEIGHTS, slopes.entropy_weights, (images,)),
    }


def _read(name: str, values: FloatArray | None, shape: tuple[int, ...]) -> FloatArray:
    """Return values as float32, zeros if there are none, after checking their shape."""
    if values is None:
        return np.zeros(shape, np.float32)
    if np.shape(values) != shape:
        raise InputError(f"expected {name} of shape {list(shape)}, found {list(np.shape(values))}")
    return np.asarray(values, np.float32)
