"""Simultaneous perturbation (SPSA): a gradient from two forwards along a random direction.

Directions are a pure function of (seed, step, sample): there is no generator to carry, save or lose.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import numpy as np

from ..model import FloatArray


def draw_gaussian_direction(seed: int, step: int, sample: int, shape: tuple[int, ...]) -> FloatArray:
    """Draw a standard normal direction, float32 of the given shape, for one sample of one step.

    >>> print(draw_gaussian_direction(seed=0, step=0, sample=0, shape=(3,)).round(3))
    [ 0.456 -2.159 -2.13 ]
    """
    # The first word after the seed is 0 for initial values (see `draw_uniform`) and positive for directions.
    generator = np.random.default_rng([seed, step + 1, sample])
    return generator.standard_normal(shape, dtype=np.float32)


def draw_segmented_direction(seed: int, step: int, sample: int, size: int) -> FloatArray:
    """Draw a direction of `size` entries, each uniform in ±[0.5, 1], float32, for one sample of one step.

    No entry is near 0, so a difference can be divided by it (ZOA, official code).

    >>> print(draw_segmented_direction(seed=0, step=0, sample=0, size=4).round(3))
    [ 0.739  0.555  0.504 -0.721]
    """
    generator = np.random.default_rng([seed, step + 1, sample])
    sizes = 1 - generator.random(size, dtype=np.float32) / 2
    return np.where(generator.integers(0, 2, size, dtype=np.int8) == 1, sizes, -sizes)


def draw_signs(generator: np.random.Generator, shape: tuple[int, ...]) -> FloatArray:
    """Draw random signs, +1 or −1, float32 of the given shape.

    >>> print(draw_signs(np.random.default_rng(0), (4,)))
    [-1.  1.  1.  1.]
    """
    return 2 * generator.integers(0, 2, shape, np.int8).astype(np.float32) - 1


def draw_uniform(seed: int, bound: float, shape: tuple[int, ...]) -> FloatArray:
    """Draw initial values, float32 of the given shape, uniform in `[-bound, bound]`.

    >>> print(draw_uniform(seed=0, bound=0.1, shape=(3,)).round(3))
    [ 0.027 -0.046 -0.092]
    """
    return np.random.default_rng([seed, 0, 0]).uniform(-bound, bound, shape).astype(np.float32)


def compute_directional_slope(loss_plus: float, loss_minus: float, epsilon: float) -> float:
    """Return the two-sided difference quotient; 0 where `epsilon` is 0 and nothing was perturbed.

    >>> compute_directional_slope(loss_plus=3.0, loss_minus=2.0, epsilon=0.25)
    2.0
    """
    return (loss_plus - loss_minus) / (2 * epsilon) if epsilon else 0.0


def compute_quotients(difference: float, direction: FloatArray, distance: float) -> FloatArray:
    """Return `difference / (distance · direction)` entry by entry, float64.

    Like (slope · direction), it estimates the gradient without bias.

    Args:
        difference: of the losses at two points.
        direction: from one to the other, without zeros, any shape.
        distance: how many times `direction` they are apart; at 0 nothing was perturbed, and zeros result.
    """
    if not distance:
        return np.zeros(direction.shape)
    return cast(FloatArray, difference / (distance * direction.astype(np.float64)))


def estimate_gradient(
    values: FloatArray,
    directions: FloatArray,
    size: float,
    losses: Callable[[FloatArray], FloatArray],
) -> tuple[float, FloatArray]:
    """Return the mean loss, and the mean of two-sided estimates of the gradient, float64 of `values`' shape.

    >>> loss, gradient = estimate_gradient(np.ones(1), np.ones((1, 1)), 0.5, lambda points: points[:, 0] ** 2)
    >>> print(loss, gradient)
    1.25 [2.]

    Args:
        values: the point, any shape.
        directions: q of them without zeros, `[q, …]`.
        size: how many times a direction the candidates are away from the point, above 0.
        losses: returns the loss `[2 q]` of each candidate `[2 q, …]`; called once, first with the
            candidates along the directions, then with those against them.
    """
    moves = size * directions.astype(np.float64)
    results = np.asarray(losses(np.concatenate([values + moves, values - moves])), np.float64)
    pairs = len(directions)
    estimates = [
        compute_quotients(plus - minus, direction, 2 * size)
        for plus, minus, direction in zip(results[:pairs], results[pairs:], directions, strict=True)
    ]
    return float(results.mean()), np.mean(estimates, axis=0)


def descend(
    values: FloatArray, directions: Sequence[FloatArray], slopes: Sequence[float], rate: float
) -> FloatArray:
    """Return `values` after one step against the averaged `slope * direction`; a new array, float32.

    Args:
        values: the tuned values, any shape.
        directions: one per sample, each of the shape of `values`.
        slopes: one difference quotient per sample.
        rate: the learning rate.
    """
    gradient = sum(
        (slope * direction.astype(np.float64) for slope, direction in zip(slopes, directions, strict=True)),
        np.zeros(values.shape),
    )
    return (values - rate / len(directions) * gradient).astype(np.float32)
