"""Grids of integers for ranges of values, and the few outlier channels that exceed them."""

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
    """Grid of the values `scale · (q - zero)` for integers `q`.

    Attributes:
        scale: distance between neighbouring values.
        zero: the integer that represents 0.
        signed: whether integers are int8, symmetric around 0, instead of uint8.
        outliers: channels whose values exceed the grid.
        bits: of an integer; below 8, it takes a part of the values of its register.
    """

    scale: float
    zero: int
    signed: bool
    outliers: tuple[int, ...] = ()
    bits: int = 8

    @property
    def integers(self) -> tuple[int, int]:
        """The smallest and largest integer."""
        largest = find_largest(self.bits)
        return (-largest, largest) if self.signed else (0, 2**self.bits - 1)

    @property
    def limits(self) -> tuple[float, float]:
        """The lowest and highest value of the grid."""
        low, high = self.integers
        return self.scale * (low - self.zero), self.scale * (high - self.zero)

    def round(self, values: FloatArray) -> FloatArray:
        """Return the values of the grid that are nearest to some values, in their type."""
        integers = np.clip(np.rint(values / np.float32(self.scale)) + self.zero, *self.integers)
        return np.asarray((integers - self.zero) * self.scale, values.dtype)


def find_largest(bits: int) -> int:
    """Return the largest integer of a symmetric grid."""
    return int(2 ** (bits - 1) - 1)


def make_unsigned_grid(range_: Range, bits: int = 8, *, outliers: bool) -> Grid:
    """Make the unsigned grid of an activation: asymmetric, with an exact zero.

    Trained transformers have a few channels with values tens of times larger than all others ("massive
    activations"). With `outliers`, the grid ignores up to eight such channels; the caller has to add what it
    clips there.
    """
    outlier_channels = _find_outliers(range_) if outliers else ()
    channels = np.setdiff1d(np.arange(len(range_.low)), outlier_channels)
    low, high = min(0.0, float(range_.low[channels].min())), max(0.0, float(range_.high[channels].max()))
    return fit_unsigned_grid(low, high, bits, outlier_channels)


def fit_unsigned_grid(low: float, high: float, bits: int, outliers: tuple[int, ...] = ()) -> Grid:
    """Make the unsigned grid from `low` ≤ 0 to `high` ≥ 0."""
    largest = 2**bits - 1
    scale = _make_scale((high - low) / largest)
    zero = int(np.clip(round(-low / scale), 0, largest))
    return Grid(scale, zero, signed=False, outliers=outliers, bits=bits)


def make_signed_grid(range_: Range, bits: int = 8) -> Grid:
    """Make the signed grid of an activation on the right side of a product: symmetric, for the kernels."""
    return fit_signed_grid(max(-float(range_.low.min()), float(range_.high.max())), bits)


def fit_signed_grid(high: float, bits: int) -> Grid:
    """Make the signed grid from `-high` to `high` ≥ 0."""
    return Grid(_make_scale(high / find_largest(bits)), 0, signed=True, bits=bits)


def quantise_weight(weight: FloatArray, bits: int) -> tuple[NDArray[np.int8], FloatArray]:
    """Return a weight `[K, M]` as symmetric int8, and the scales of its M columns, float32 `[M]`.

    Args:
        weight: float32.
        bits: 3 to 8; at most 7 for processors whose kernels add two products in 16 bits.
    """
    largest = find_largest(bits)
    scale = (np.abs(weight).max(axis=0) / largest).astype(np.float32)
    scale[scale == 0] = 1
    return np.clip(np.rint(weight / scale), -largest, largest).astype(np.int8), scale


def _find_outliers(range_: Range) -> tuple[int, ...]:
    """Return the largest channels, as long as leaving them out makes the grid at least twice as fine."""
    size = np.maximum(np.abs(range_.low), np.abs(range_.high))
    order = np.argsort(-size, kind="stable")[: MAX_OUTLIERS + 1]
    ordered, count = size[order], 0
    for k in range(1, len(order)):
        if 0 < ordered[k] * OUTLIER_GAIN <= ordered[count]:
            count = k
    return tuple(sorted(int(channel) for channel in order[:count]))


def _make_scale(size: float) -> float:
    """Return a scale that float32 can hold and divide by; 1 where all values are zero."""
    return float(np.float32(size)) if size > np.finfo(np.float32).tiny else 1.0
