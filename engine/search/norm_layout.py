"""Positions of the adapted norms' values in the tunable `norms`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..model import BATCH_STATISTICS, NORMS, FloatArray, ModelInfo, Tunables
from .bank import Offsets


@dataclass(frozen=True, eq=False)
class NormLayout:
    """Positions in the tunable `norms` of the adapted values, which are stored without padding.

    Attributes:
        rows: row and width of each adapted norm.
        shape: of the tunable, `(1, M, 2, W)`.
        size: V, the number of adapted values: gain and bias of each norm, in the order of the graph's input.
        tensors: offset of each gain and each bias in the V values, `[2 norms]`.
        constants: tunables that are the same in every forward.
    """

    rows: tuple[tuple[int, int], ...]
    shape: tuple[int, int, int, int]
    size: int
    tensors: Offsets
    constants: Tunables

    @classmethod
    def of(cls, model: ModelInfo, names: tuple[str, ...]) -> NormLayout:
        """Return the layout of the norms of these names."""
        index = {name: row for row, name in enumerate(model.norms)}
        widths = np.repeat([model.norms[name] for name in names], 2)
        ends = np.cumsum(widths)
        # A network with batch norms is adapted as one that normalises with the statistics of the batch.
        constants: Tunables = (
            {BATCH_STATISTICS: np.ones(1, np.float32)} if BATCH_STATISTICS in model.tunables else {}
        )
        return cls(
            rows=tuple((index[name], model.norms[name]) for name in names),
            shape=(1, len(index), 2, max(model.norms.values())),
            size=int(ends[-1]),
            tensors=ends - widths,
            constants=constants,
        )

    def build_tunables(self, values: FloatArray) -> Tunables:
        """Return tunables with `values` float32 `[V]` in `norms` `[1, M, 2, W]`, and zeros elsewhere."""
        norms = np.zeros(self.shape, np.float32)
        start = 0
        for row, width in self.rows:
            norms[0, row, :, :width] = values[start : start + 2 * width].reshape(2, width)
            start += 2 * width
        return {NORMS: norms, **self.constants}
