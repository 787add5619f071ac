"""Second moments of the inputs of products: as they are, and as rounded to integers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..engine.model import FloatArray
from .grid import Grid

TOKENS = 64  # per image


@dataclass(frozen=True)
class InputMoments:
    """Moments of an input x `[K]` and of its rounded form r, over tokens; float64.

    Where the grid has outlier channels, x is clipped in these: a product adds the rest in float.

    Attributes:
        mean: of x, `[K]`.
        rounded_mean: of r, `[K]`.
        gram: covariance of r with itself, `[K, K]`.
        cross: covariance of r with x, `[K, K]`.
    """

    mean: FloatArray
    rounded_mean: FloatArray
    gram: FloatArray
    cross: FloatArray


class MomentSums:
    """Sums over batches, from which the moments of one input follow."""

    def __init__(self, grid: Grid | None, seed: int) -> None:
        """Begin without tokens.

        Args:
            grid: of the input; None leaves it in float.
            seed: of the choice of tokens.
        """
        self._grid, self._generator = grid, np.random.default_rng(seed)
        self._tokens = 0
        self._sums: tuple[FloatArray, ...] = ()

    def add(self, values: FloatArray, images: int) -> None:
        """Add at most 64 tokens per image of a batch of activations `[…, K]`."""
        rows = values.reshape(-1, values.shape[-1])
        count = min(len(rows), TOKENS * images)
        rows = rows[np.sort(self._generator.permutation(len(rows))[:count])].astype(np.float32)
        rounded = rows
        if self._grid is not None:
            rounded = self._grid.round(rows)
            channels = list(self._grid.outliers)
            rows[:, channels] = np.clip(rows[:, channels], *self._grid.limits)
        terms = (rows.sum(axis=0), rounded.sum(axis=0), rounded.T @ rounded, rounded.T @ rows)
        exact = tuple(np.asarray(term, np.float64) for term in terms)
        self._sums = tuple(map(np.add, self._sums, exact)) if self._sums else exact
        self._tokens += count

    def summarise(self) -> InputMoments:
        """Return the moments of all tokens so far."""
        mean, rounded_mean, gram, cross = (total / self._tokens for total in self._sums)
        return InputMoments(
            mean,
            rounded_mean,
            gram - np.outer(rounded_mean, rounded_mean),
            cross - np.outer(rounded_mean, mean),
        )
