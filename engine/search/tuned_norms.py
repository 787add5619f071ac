"""The norms that a method tunes, among the tunable ones of a graph."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..model import NORMS, FloatArray, ModelInfo, Tunables
from .norm_selection import select_norms


@dataclass(frozen=True)
class TunedNorms:
    """Rows of the tunable `norms` that a method tunes.

    Attributes:
        rows: of the tuned norms, which follow each other.
        count: M, number of tunable norms.
        width: W, number of channels of the widest.
    """

    rows: slice
    count: int
    width: int

    @staticmethod
    def select(model: ModelInfo, first: int, frozen_last: int, user: str) -> TunedNorms:
        """Return the norms of the blocks from `first` to before the last `frozen_last` (see `select_norms`).

        Raises:
            BundleError: there are none.
        """
        names = select_norms(model, first, frozen_last, user)
        order = list(model.norms)
        rows = slice(order.index(names[0]), order.index(names[-1]) + 1)
        return TunedNorms(rows, len(order), max(model.norms.values()))

    def create_zeros(self, dtype: type[np.floating] = np.float64) -> FloatArray:
        """Return zeros for the tuned norms, `[T, 2, W]`."""
        return np.zeros((self.rows.stop - self.rows.start, 2, self.width), dtype)

    def build_tunables(self, addends: FloatArray) -> Tunables:
        """Return what to feed for addends of the tuned norms, `[T, 2, W]`, or `[N, T, 2, W]` per image."""
        sets = addends.reshape(-1, *addends.shape[-3:])
        norms = np.zeros((len(sets), self.count, 2, self.width), np.float32)
        norms[:, self.rows] = sets
        return {NORMS: norms}
