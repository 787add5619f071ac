"""ZIP's parameters against published numbers, and the sizes of its settings."""

from __future__ import annotations

import math

import numpy as np
import pytest
from fozo.engine.errors import InputError
from fozo.engine.search.fastfood import Fastfood, compute_projection
from fozo.engine.tuning.low_rank_context import LowRankContext, make_low_rank_context

START = np.random.default_rng(0).normal(size=(8, 512)).astype(np.float32)


def test_the_published_context() -> None:
    """Vector Z1: 2 vectors of width 4, rank 2, 3 values each."""
    fastfoods = [
        Fastfood(np.array([1.0, -1, -1, 1]), np.array([2, 0, 3, 1]), np.array([0.5, -1, 1.5, 0.25])),
        Fastfood(np.array([-1.0, 1, 1, 1]), np.array([1, 3, 0, 2]), np.array([1, 0.2, -0.7, 0.9])),
    ]
    space = LowRankContext(np.stack([compute_projection(fastfood, 3, 4) for fastfood in fastfoods]), 2)
    u_matrix, v_matrix = np.sin(1 + np.arange(4)), np.cos(np.arange(6))
    parameters = np.concatenate([u_matrix, [1, 0.5], v_matrix, [0.1, 0.2, 0.3]])[None]
    assert space.size == parameters.size == 15
    rows = [[1.187118733, -0.6002743032, -0.1210554937], [0.0366689414, 0.515887751, 0.1004196821]]
    np.testing.assert_allclose(space.compute_rows(parameters)[0], rows, rtol=1e-8)
    start = 0.02 * np.cos(np.arange(8)).reshape(2, 4)
    context = [
        [-0.0328809937, 0.8752821489, -0.5251390763, 0.5682683778],
        [-0.2247344846, -0.3434814292, -0.150078994, 0.1540343099],
    ]
    np.testing.assert_allclose(space.compute_contexts(parameters, start)[0], context, rtol=2e-7)


@pytest.mark.parametrize(
    ("vectors", "dimension", "inputs", "size", "limit"),
    [
        (8, 500, 62, 417, 20.42057785666),
        (8, 1000, 125, 795, 28.19574436),
        (4, 500, 125, 775, math.sqrt(775)),
        (16, 500, 31, 271, math.sqrt(271)),
    ],
)
def test_sizes_of_published_settings(
    vectors: int, dimension: int, inputs: int, size: int, limit: float
) -> None:
    space = make_low_rank_context((vectors, 512), 1, dimension)
    assert (space.projections.shape, space.size) == ((vectors, 512, inputs), size)
    assert math.sqrt(space.size) == pytest.approx(limit, rel=1e-7)
    assert space.draw_parameters(1).shape == (size,)


def test_the_first_context_is_the_start_to_the_bit() -> None:
    for shared in (True, False):
        space = make_low_rank_context((8, 512), 3, shared=shared)
        context = space.compute_contexts(space.draw_parameters(3)[None], START)[0]
        assert context.dtype == np.float32
        np.testing.assert_array_equal(context, START)


def test_without_sharing_the_parameters_end_with_v() -> None:
    """A shared row of zeros is none."""
    shared, alone = (make_low_rank_context((8, 512), 3, shared=flag) for flag in (True, False))
    assert (shared.size, alone.size) == (417, 355)
    parameters = np.random.default_rng(0).normal(size=(2, 355))
    padded = np.concatenate([parameters, np.zeros((2, 62))], axis=1)
    np.testing.assert_array_equal(alone.compute_rows(parameters), shared.compute_rows(padded))


def test_the_shared_row_moves_every_vector() -> None:
    space = make_low_rank_context((8, 512), 3)
    parameters = space.draw_parameters(3)
    parameters[-62:] = 1
    moves = space.compute_contexts(parameters[None], np.zeros((8, 512), np.float32))[0]
    np.testing.assert_allclose(moves, space.projections.sum(2), rtol=1e-6)
    assert len(np.unique(moves.round(6), axis=0)) == 8  # each through a projection of its own


def test_projections_depend_on_the_seed() -> None:
    first, again, other = (make_low_rank_context((2, 16), seed, 8).projections for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


@pytest.mark.parametrize(("dimension", "rank"), [(1, 1), (34, 1), (8, 0)])
def test_sizes_that_do_not_fit(dimension: int, rank: int) -> None:
    with pytest.raises(InputError, match="an intrinsic dimension of 2 to 33 for 2 vectors of width 16"):
        make_low_rank_context((2, 16), 1, dimension, rank)
