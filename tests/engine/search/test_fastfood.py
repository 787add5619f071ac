"""Fastfood against published numbers, matrices from the definition, and its properties."""

from __future__ import annotations

import numpy as np
import pytest
from fozo.engine.errors import InputError
from fozo.engine.model import FloatArray
from fozo.engine.search.fastfood import (
    Fastfood,
    compute_projection,
    count_width,
    draw_fastfood,
    transform_hadamard,
)

SIGNS = np.array([1.0, -1, 1, 1, -1, 1, -1, 1])
ORDER = np.array([3, 0, 7, 1, 6, 2, 5, 4])
GAINS = np.array([0.5, -1, 2, 0.25, -0.75, 1.5, -0.3, 1])


def make_hadamard(width: int) -> FloatArray:
    """Return the matrix from its entries, (-1) to the number of common bits of row and column."""
    rows = np.arange(width)
    bits = np.vectorize(lambda number: bin(number).count("1"))
    signs: FloatArray = (-1.0) ** bits(rows[:, None] & rows)
    return signs


def test_the_published_vector() -> None:
    matrix = compute_projection(Fastfood(SIGNS, ORDER, GAINS), 3, 6)
    expected = [1.3314102608, 1.1969243759, -0.2555231814, -1.1969243759, 2.0307368625, 0.8203638981]
    np.testing.assert_allclose(matrix @ [1, 2, -1], expected, rtol=1e-9)


@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (3, 5), (16, 16), (7, 13)])
def test_the_matrix_is_the_product_of_its_factors(inputs: int, outputs: int) -> None:
    fastfood = draw_fastfood(np.random.default_rng(0), outputs)
    width = count_width(outputs)
    hadamard, identity = make_hadamard(width), np.eye(width)
    permuted = identity[fastfood.order] @ hadamard @ np.diag(fastfood.signs)
    product = hadamard @ np.diag(fastfood.gains) @ permuted
    expected = product[:outputs, :inputs] / np.sqrt(outputs * np.square(fastfood.gains).sum())
    np.testing.assert_allclose(compute_projection(fastfood, inputs, outputs), expected, atol=1e-12)


def test_single_values_keep_their_length() -> None:
    """Without a cut, each column has length 1."""
    matrix = compute_projection(draw_fastfood(np.random.default_rng(1), 64), 64, 64)
    np.testing.assert_allclose(np.linalg.norm(matrix, axis=0), 1, rtol=1e-12)


def test_the_transform_is_its_own_inverse_up_to_the_width() -> None:
    rows = np.random.default_rng(0).normal(size=(2, 3, 32))
    np.testing.assert_allclose(transform_hadamard(rows), rows @ make_hadamard(32), atol=1e-12)
    np.testing.assert_allclose(transform_hadamard(transform_hadamard(rows)), 32 * rows, atol=1e-12)


def test_draws() -> None:
    fastfood = draw_fastfood(np.random.default_rng(0), 500)
    assert sorted(fastfood.order.tolist()) == list(range(512))
    assert set(fastfood.signs.tolist()) == {-1.0, 1.0}
    assert abs(fastfood.signs.mean()) < 0.2
    assert fastfood.gains.std() == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize(("inputs", "outputs"), [(0, 8), (9, 8), (8, 9)])
def test_sizes_that_do_not_fit(inputs: int, outputs: int) -> None:
    with pytest.raises(InputError, match="expected a projection of 1 to 8 values"):
        compute_projection(Fastfood(SIGNS, ORDER, GAINS), inputs, outputs)
