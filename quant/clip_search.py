"""Search for the ends of a grid of few integers: clipping rare values makes the grid finer for all others.

The best ends have the least squared error over a sample of activations, of clipping and rounding together. At
8 bits, whole ranges are better: the steps are fine already, and clipped values are missed.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ..engine.model import FloatArray
from .calibration import Range
from .grid import Grid, find_largest, fit_signed_grid, fit_unsigned_grid, make_unsigned_grid

SHARES = tuple(share / 20 for share in range(20, 1, -1))  # of the range, from all of it to a tenth
VALUES = 2**16  # of a sample


def search_unsigned_grid(range_: Range, sample: FloatArray, bits: int, *, outliers: bool) -> Grid:
    """Return the unsigned grid with the least squared error.

    Args:
        range_: range of the channels.
        sample: activations `[T, C]`.
        bits: of an integer.
        outliers: as in `make_unsigned_grid`.
    """
    channels = make_unsigned_grid(range_, bits, outliers=outliers).outliers
    ordinary = np.setdiff1d(np.arange(sample.shape[1]), channels)
    low, high = min(0.0, float(range_.low[ordinary].min())), max(0.0, float(range_.high[ordinary].max()))
    lows = [low * share for share in SHARES] if low else [0.0]
    candidates = (fit_unsigned_grid(a, high * share, bits, channels) for a in lows for share in SHARES)
    return _choose_best(candidates, _thin_out(sample[:, ordinary]))


def search_signed_grid(range_: Range, sample: FloatArray, bits: int) -> Grid:
    """Return the signed grid with the least squared error; the arguments are those of the unsigned one."""
    high = max(-float(range_.low.min()), float(range_.high.max()))
    return _choose_best((fit_signed_grid(high * share, bits) for share in SHARES), _thin_out(sample))


def search_weight_scales(weight: FloatArray, bits: int) -> FloatArray:
    """Return the scales of the columns of a weight `[K, M]` with the least squared error, float32 `[M]`."""
    largest = find_largest(bits)
    return np.asarray(search_scales(weight[None], (-largest, largest))[0])


def search_scales(blocks: FloatArray, limits: tuple[int, int]) -> FloatArray:
    """Return the scales of the columns of several weights with the least squared error, float32 `[B, M]`.

    Args:
        blocks: the weights `[B, K, M]`.
        limits: the smallest and largest integer.
    """
    full = np.abs(blocks).max(axis=1) / limits[1]
    full[full == 0] = 1
    best, errors = np.zeros_like(full), np.full(full.shape, np.inf)
    for share in SHARES:
        scale = share * full
        rounded = np.clip(np.rint(blocks / scale[:, None]), *limits) * scale[:, None]
        error = np.square(rounded - blocks).sum(axis=1)
        better = error < errors
        best[better], errors[better] = scale[better], error[better]
    return np.asarray(best, np.float32)


def _choose_best(candidates: Iterable[Grid], values: FloatArray) -> Grid:
    """Return the grid with the least squared error; the first of several, which is the widest."""
    return min(candidates, key=lambda grid: float(np.square(grid.round(values) - values).sum()))


def _thin_out(sample: FloatArray) -> FloatArray:
    """Return at most `VALUES` of the values, chosen at random and always the same."""
    values = sample.ravel()
    return values[np.random.default_rng(0).permutation(len(values))[:VALUES]]
