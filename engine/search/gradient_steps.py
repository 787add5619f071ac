"""Steps along a gradient: plain descent, with a velocity, AdamW without a past, and normalised momentum."""

from __future__ import annotations

import numpy as np

from ..model import FloatArray

TINY = 1e-12  # a gradient below this is none at all


def compute_rms(values: FloatArray) -> float:
    """Return the root mean square of an array; 0 if it is empty.

    >>> round(compute_rms(np.array([3.0, 4.0])), 4)
    3.5355
    """
    return float(np.sqrt(np.mean(np.square(values)))) if values.size else 0.0


def compute_length(values: FloatArray) -> float:
    """Return the Euclidean length of an array, without BLAS (docs/engine.md, threads of NumPy).

    >>> compute_length(np.array([[3.0], [4.0]]))
    5.0
    """
    return float(np.sqrt(np.sum(np.square(values))))


def take_sgd_step(values: FloatArray, gradient: FloatArray, rate: float, decay: float) -> FloatArray:
    """Return `values` after gradient descent with L2 weight decay, a new float32 array.

    >>> print(take_sgd_step(np.array([1.0]), np.array([2.0]), rate=0.1, decay=0.5))
    [0.75]
    """
    return (values - rate * (gradient + decay * values)).astype(np.float32)


def take_velocity_step(
    values: FloatArray, velocity: FloatArray, gradient: FloatArray, rate: float, momentum: float
) -> tuple[FloatArray, FloatArray]:
    """Return values and velocity after gradient descent with momentum, as PyTorch's `SGD` takes it.

    `v ← momentum · v + gradient`, `values ← values − rate · v`; the first velocity is the gradient.

    >>> values, velocity = take_velocity_step(np.ones(1), np.ones(1), np.ones(1), rate=0.1, momentum=0.5)
    >>> print(f"{values[0]:.2f}, {velocity[0]:.1f}")
    0.85, 1.5

    Args:
        values: any shape; a new float32 array results.
        velocity: float64, zeros before the first step.
        gradient: float64.
        rate: η.
        momentum: share of the old velocity that is kept.
    """
    velocity = momentum * velocity + gradient
    return (values - rate * velocity).astype(np.float32), velocity


def take_fresh_adamw_step(values: FloatArray, gradient: FloatArray, rate: float, decay: float) -> FloatArray:
    """Return `values` after AdamW without a past, as when its state is cleared after every step.

    That is nearly a step of the sign.

    Args:
        values: float64, any shape; a new array results.
        gradient: of the same shape.
        rate: the learning rate.
        decay: decoupled weight decay.
    """
    return values * (1 - rate * decay) - rate * gradient / (np.abs(gradient) + 1e-8)


def update_momentum(momentum: FloatArray, gradient: FloatArray, decay: float) -> FloatArray:
    """Return the running average of gradients after one more, not yet corrected for its start at 0."""
    return decay * momentum + (1 - decay) * gradient


def take_momentum_step(
    values: FloatArray, average: FloatArray, gradient: FloatArray, length: float, anchor: float
) -> FloatArray:
    """Return `values` after a step of a given length along an average gradient, a new float32 array.

    The step is divided by the root mean square of the average or of the newest gradient, whichever is larger,
    so that it is never longer than `length`.

    Args:
        values: tuned values, any shape.
        average: average of the gradients, of the same shape.
        gradient: the newest of them.
        length: root mean square of the longest step.
        anchor: share by which the values are drawn back to 0.
    """
    size = max(compute_rms(gradient), compute_rms(average))
    step = length * average / size if size > TINY else 0.0
    return ((1 - anchor) * values - step).astype(np.float32)
