"""Activation shift: move the head's input by a vector known from a running mean of the features.

The head is linear, so shifting its input by d adds `W d` to the logits: no second forward.
"""

from __future__ import annotations

import numpy as np

from ..model import FloatArray, SourceStatistics


def update_average(previous: FloatArray | None, value: FloatArray, decay: float) -> FloatArray:
    """Return an exponential moving average after one more value; the first value is taken over as it is.

    >>> print(update_average(None, np.array([2.0]), 0.9))
    [2.]
    >>> print(update_average(np.array([1.0]), np.array([2.0]), 0.9))
    [1.1]
    """
    return value if previous is None else decay * previous + (1 - decay) * value


def compute_shift(target: FloatArray | None, center: FloatArray | None, gain: float) -> FloatArray | None:
    """Return `gain * (target - center)`, float64 `[F]`, or None before the first batch.

    Args:
        target: where features should be centred, `[F]`; None stands for the origin.
        center: where they are centred now, `[F]`; None before the first batch.
        gain: 1 moves them all the way.

    >>> print(compute_shift(np.array([1.0, 1.0]), np.array([0.0, 3.0]), 0.5))
    [ 0.5 -1. ]
    >>> print(compute_shift(None, np.array([2.0, 3.0]), 1.0))
    [-2. -3.]
    """
    if center is None:
        return None
    return gain * (-center if target is None else target - center)


def compute_logit_offset(head_weight: FloatArray, shift: FloatArray | None) -> FloatArray:
    """Return the logit offset caused by shifting the features: `head_weight @ shift`, float32 `[K]`.

    >>> print(compute_logit_offset(np.array([[1, 0], [1, 2]], np.float32), np.array([0.5, -1.0])))
    [ 0.5 -1.5]
    """
    if shift is None:
        return np.zeros(len(head_weight), np.float32)
    # Not `@`, whose threads would go on looking for work (docs/engine.md, threads of NumPy).
    offset: FloatArray = np.einsum("kf,f->k", head_weight, shift.astype(np.float32))
    return offset


def compute_shift_offset(
    head_weight: FloatArray,
    source: SourceStatistics,
    center: FloatArray | None,
    target: str,
    gain: float = 1.0,
) -> FloatArray:
    """Return the logit offset of the activation shift to a named target, float32 `[K]`.

    Args:
        head_weight: `[K, F]`.
        source: statistics of clean images.
        center: where features are centred now, `[F]`; None before the first batch, which is not shifted.
        target: `none`, no shift; `origin`; anything else is the source mean of the last feature.
        gain: 1 moves features all the way.

    >>> source = SourceStatistics(np.array([[1.0, 1.0]]), np.ones((1, 2)), images=100)
    >>> head, center = np.eye(2, dtype=np.float32), np.array([0.0, 3.0])
    >>> for target in ("source_mean", "origin", "none"):
    ...     print(compute_shift_offset(head, source, center, target))
    [ 1. -2.]
    [ 0. -3.]
    [0. 0.]
    """
    if target == "none":
        return compute_logit_offset(head_weight, None)
    destination = None if target == "origin" else source.mean[-1]
    return compute_logit_offset(head_weight, compute_shift(destination, center, gain))
