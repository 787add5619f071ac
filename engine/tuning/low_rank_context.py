"""ZIP's contexts (ICLR 2025, section 4): a few hundred parameters that stand for all values of a context.

The parameters are, in this order, U `[M, r]`, s `[r]`, V `[q, r]` and a row v `[q]` that all vectors share.
`U diag(s) Vᵀ + 1 vᵀ` has a row of q = ⌊d / M⌋ values for each of the M vectors, d the intrinsic dimension. A
Fastfood projection of its own takes each row to the width D of the text tower, and is added to the vector
that the context starts from. As U and v start at zero, the first context is exactly that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np

from ..errors import InputError
from ..model import FloatArray
from ..search.fastfood import compute_projection, count_width, draw_fastfood

# Third words of seeds; directions have a second word above 0, and initial contexts have none.
_V_DRAW, _FIRST_PROJECTION_DRAW = 1, 2


@dataclass(frozen=True)
class LowRankContext:
    """The map from parameters to contexts of M vectors.

    Attributes:
        projections: Φ, one matrix for each vector, float64 `[M, D, q]`.
        rank: r.
        shared: whether there is a row v; without it the parameters end with V.
    """

    projections: FloatArray
    rank: int
    shared: bool = True

    @property
    def size(self) -> int:
        """Number of parameters δ."""
        vectors, _, inputs = self.projections.shape
        return int(self.rank * (vectors + 1 + inputs) + inputs * self.shared)

    def draw_parameters(self, seed: int) -> FloatArray:
        """Return the parameters before the first step: V normal, s one, U and v zero, float64 `[δ]`."""
        vectors, _, inputs = self.projections.shape
        v_matrix = np.random.default_rng([seed, 0, _V_DRAW]).standard_normal(inputs * self.rank)
        return np.concatenate(
            [np.zeros(vectors * self.rank), np.ones(self.rank), v_matrix, np.zeros(inputs * self.shared)]
        )

    def compute_rows(self, parameters: FloatArray) -> FloatArray:
        """Return `U diag(s) Vᵀ + 1 vᵀ` of each of C parameter vectors, float64 `[C, M, q]`.

        Args:
            parameters: `[C, δ]`.
        """
        vectors, _, inputs = self.projections.shape
        sizes = [vectors * self.rank, self.rank, inputs * self.rank]
        u_flat, scales, v_flat, shared_row = np.split(parameters, np.cumsum(sizes), axis=1)
        u_matrix = u_flat.reshape(-1, vectors, self.rank) * scales[:, None]
        rows: FloatArray = u_matrix @ v_flat.reshape(-1, inputs, self.rank).transpose(0, 2, 1)
        return rows + shared_row[:, None] if self.shared else rows

    def compute_contexts(self, parameters: FloatArray, start: FloatArray) -> FloatArray:
        """Return the context of each of C parameter vectors, float32 `[C, M, D]`.

        Args:
            parameters: `[C, δ]`.
            start: the context before the first step, float32 `[M, D]`.
        """
        moves = np.einsum("mdq,cmq->cmd", self.projections, self.compute_rows(parameters))
        return cast(FloatArray, (start + moves).astype(np.float32))


def make_low_rank_context(
    shape: tuple[int, int], seed: int, dimension: int = 500, rank: int = 5, *, shared: bool = True
) -> LowRankContext:
    """Draw the projections of a context, and return its map.

    The defaults are those of ZIP's scripts: 417 parameters for 8 vectors.

    Args:
        shape: M and D.
        seed: of the projections.
        dimension: d.
        rank: r.
        shared: whether all vectors share a row v.

    Raises:
        InputError: the dimension leaves no value for each vector, or more than the projection takes; or the
            rank is below 1.
    """
    vectors, width = shape
    inputs, most = dimension // vectors, count_width(width)
    if not 1 <= inputs <= most or rank < 1:
        raise InputError(
            f"expected a rank of at least 1, and an intrinsic dimension of {vectors} to "
            f"{vectors * (most + 1) - 1} for {vectors} vectors of width {width}, found {rank} and {dimension}"
        )
    projections = [
        compute_projection(
            draw_fastfood(np.random.default_rng([seed, 0, _FIRST_PROJECTION_DRAW + vector]), width),
            inputs,
            width,
        )
        for vector in range(vectors)
    ]
    return LowRankContext(np.stack(projections), rank, shared)
