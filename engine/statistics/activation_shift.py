"""Activation shift: move the head's input by a vector known from a running mean of the features.

The head is linear, so shifting its input by d adds `W d` to the logits: no second forward.
"""

from __future__ import annotations

import numpy as np

from ..model import FloatArray


def update_average(previous: FloatArray | None, value: FloatArray, decay: float) -> FloatArray:
    """Return an exponential moving average after one more value; the first value is taken over as it is."""
    return value if previous is None else decay * previous + (1 - decay) * value


def compute_shift(target: FloatArray | None, center: FloatArray | None, gain: float) -> FloatArray | None:
    """Return `gain * (target - center)`, float64 `[F]`, or None before the first batch.

    Args:
        target: where features should be centred, `[F]`; None stands for the origin.
        center: where they are centred now, `[F]`; None before the first batch.
        gain: 1 moves them all the way.
    """
    if center is None:
        return None
    return gain * (-center if target is None else target - center)


def compute_logit_offset(head_weight: FloatArray, shift: FloatArray | None) -> FloatArray:
    """Return the logit offset caused by shifting the features: `head_weight @ shift`, float32 `[K]`."""
    if shift is None:
        return np.zeros(len(head_weight), np.float32)
    return head_weight @ shift.astype(np.float32)
