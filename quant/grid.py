"""From a range of values to a grid of 256 integers, and the few channels that do not fit on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..engine.model import FloatArray
from .calibration import Range

MAX_OUTLIERS = 8
OUTLIER_GAIN = 2.0


@dataclass(frozen=True)
class Grid:
    """Integers `q` that stand for `scale · (q - zero)`.

    Attributes:
        scale: size of a step.
        zero: the integer that stands for 0.
        signed: int8, symmetric, or uint8.
        outliers: channels whose values go beyond the grid.
    """

    scale: float
    zero: int
    signed: bool
    outliers: tuple[int, ...] = ()

    @property
    def limits(self) -> tuple[float, float]:
        """The lowest and highest value that the grid holds."""
        low, high = (-127, 127) if self.signed else (0, 255)
        return self.scale * (low - self.zero), self.scale * (high - self.zero)


def unsigned_grid(range_: Range, *, outliers: bool) -> Grid:
    """The uint8 grid of an activation: asymmetric, zero is exact.

    Trained transformers have a few channels with values tens of times larger than all others ("massive
    activations"). With `outliers`, up to eight such channels do not count for the grid; who uses it has to
    make up for what saturates there.
    """
    left_out = _outliers(range_) if outliers else ()
    rest = np.setdiff1d(np.arange(len(range_.low)), left_out)
    low, high = min(0.0, float(range_.low[rest].min())), max(0.0, float(range_.high[rest].max()))
    scale = _step((high - low) / 255)
    return Grid(scale, int(np.clip(round(-low / scale), 0, 255)), signed=False, outliers=left_out)


def signed_grid(range_: Range, bits: int = 8) -> Grid:
    """The int8 grid of an activation on the right side of a product: symmetric, as the kernels want it.

    Args:
        range_: of the activation.
        bits: 8, or 7 as in `weight_grid`.
    """
    largest = 2 ** (bits - 1) - 1
    return Grid(_step(max(-float(range_.low.min()), float(range_.high.max())) / largest), 0, signed=True)


def weight_grid(weight: FloatArray, bits: int) -> tuple[NDArray[np.int8], FloatArray]:
    """A weight `[K, M]` as int8, symmetric, with a scale for each of its M columns, float32 `[M]`.

    Args:
        weight: float32.
        bits: 8, or 7 for processors whose kernels add two products in 16 bits.
    """
    largest = 2 ** (bits - 1) - 1
    scale = (np.abs(weight).max(axis=0) / largest).astype(np.float32)
    scale[scale == 0] = 1
    return np.clip(np.rint(weight / scale), -largest, largest).astype(np.int8), scale


def _outliers(range_: Range) -> tuple[int, ...]:
    """The fewest channels without which the rest needs a grid half as coarse, and so on from there."""
    size = np.maximum(np.abs(range_.low), np.abs(range_.high))
    order = np.argsort(-size, kind="stable")[: MAX_OUTLIERS + 1]
    ordered, count = size[order], 0
    for k in range(1, len(order)):
        if 0 < ordered[k] * OUTLIER_GAIN <= ordered[count]:
            count = k
    return tuple(sorted(int(channel) for channel in order[:count]))


def _step(size: float) -> float:
    """A scale that float32 can hold and divide by; of a constant zero, any."""
    return float(np.float32(size)) if size > np.finfo(np.float32).tiny else 1.0
