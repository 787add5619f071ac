"""Fastfood (Le, Sarlós and Smola, ICML 2013): random projections from few values to many, as matrices.

L is the smallest power of two that is not below the number of outputs D. A projection takes x, padded with
zeros to L, to `H G Π H B x`, cut to D entries and divided by `√(D · Σ g²)`. H is the Walsh-Hadamard matrix
with entries ±1, B and G are diagonals of signs and of gains g, and Π is a permutation. The paper's g are
normal numbers; PACE's official code has signs. As all of it is linear and fixed, the projection of q inputs
is one matrix `[D, q]`, computed once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..model import FloatArray


@dataclass(frozen=True)
class Fastfood:
    """The random numbers of a projection of width L.

    Attributes:
        signs: b, +1 or -1, `[L]`.
        order: π, a permutation: entry i comes from entry `order[i]`, `[L]`.
        gains: g, float64 `[L]`.
    """

    signs: FloatArray
    order: NDArray[np.int64]
    gains: FloatArray


def count_width(outputs: int) -> int:
    """Return L, the smallest power of two that is not below the number of outputs.

    >>> count_width(512), count_width(6)
    (512, 8)
    """
    return 1 << (outputs - 1).bit_length()


def draw_fastfood(
    generator: np.random.Generator, outputs: int, gains: Literal["normal", "signs"] = "normal"
) -> Fastfood:
    """Draw a projection to so many outputs, with g of one of two kinds."""
    width = count_width(outputs)
    signs = _draw_signs(generator, width)
    order = generator.permutation(width)
    if gains == "signs":
        return Fastfood(signs, order, _draw_signs(generator, width))
    return Fastfood(signs, order, generator.standard_normal(width))


def _draw_signs(generator: np.random.Generator, count: int) -> FloatArray:
    return 1.0 - 2.0 * generator.integers(0, 2, count)


def transform_hadamard(rows: FloatArray) -> FloatArray:
    """Return the Walsh-Hadamard transform of each row, without a factor, in natural order.

    >>> print(transform_hadamard(np.array([[1.0, 2.0, 3.0, 4.0]])))
    [[10. -2. -4.  0.]]

    Args:
        rows: `[…, L]`, L a power of two.
    """
    half, result = rows.shape[-1] // 2, rows
    while half:
        pairs = result.reshape(*rows.shape[:-1], -1, 2, half)
        first, second = pairs[..., 0, :], pairs[..., 1, :]
        result = np.stack([first + second, first - second], axis=-2).reshape(rows.shape)
        half //= 2
    return result


def compute_projection(fastfood: Fastfood, inputs: int, outputs: int) -> FloatArray:
    """Return the projection as a matrix, float64 `[outputs, inputs]`.

    Raises:
        InputError: there are more inputs than the width of the projection, or none.
    """
    width = len(fastfood.signs)
    if not 1 <= inputs <= width or outputs > width:
        raise InputError(
            f"expected a projection of 1 to {width} values to at most {width}, found {inputs} to {outputs}"
        )
    matrix: FloatArray = project(fastfood, np.eye(inputs), outputs).T
    return matrix


def project(fastfood: Fastfood, rows: FloatArray, outputs: int) -> FloatArray:
    """Return the projection of each row `[n, q]`, float64 `[n, outputs]`, without a matrix.

    Neither q nor the number of outputs may exceed the width of the projection.
    """
    padded = np.zeros((len(rows), len(fastfood.signs)))
    padded[:, : rows.shape[1]] = rows
    mixed = transform_hadamard(padded * fastfood.signs)
    mixed = transform_hadamard(mixed[:, fastfood.order] * fastfood.gains)
    result: FloatArray = mixed[:, :outputs] / np.sqrt(outputs * np.square(fastfood.gains).sum())
    return result
