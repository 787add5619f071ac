"""Sharpness-aware tuning of a context: SAPT of TLLA, later FGA (arXiv 2501.18864, equations 3 and 4).

The loss is `ℓ(p) + λ · max over ‖ε‖ ≤ ρ of [ℓ(p + ε) − ℓ(p)]`. The inner maximum is taken along the gradient,
`ε = ρ · ∇ℓ(p) / ‖∇ℓ(p)‖` over the whole context, and not differentiated. So the direction of a step is
`(1 − λ) · ∇ℓ(p) + λ · ∇ℓ(p + ε)`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..errors import InputError
from ..model import FloatArray
from ..search.gradient_steps import TINY, take_velocity_step
from ..state import State
from .cosine_schedule import CosineSchedule

# Returns loss and gradient at a context `[M, D]`, on the same images in every call of a step.
Slope = Callable[[FloatArray], tuple[float, FloatArray]]


class StepRecord(NamedTuple):
    """A step in numbers.

    Attributes:
        loss: the loss before the step.
        sharpness: how much higher it is at the perturbed context; 0 if none was computed.
        gradient_norm: length of the gradient, or of its estimate, before it is changed in any way.
    """

    loss: float
    sharpness: float
    gradient_norm: float


@dataclass(frozen=True)
class SaptState(State):
    """State of SAPT.

    Attributes:
        values: the context, float32 `[M, D]`.
        velocity: of the descent, float64 `[M, D]`.
    """

    values: FloatArray
    velocity: FloatArray


@dataclass(frozen=True)
class Sapt:
    """SAPT with stochastic gradient descent.

    Attributes:
        schedule: learning rates.
        sharpness: λ; 0 is plain training of a context, as CoOp's.
        radius: ρ, length of the perturbation.
        momentum: share of the velocity that a step keeps.
        decay: weight decay, an L2 penalty in the gradient.
    """

    schedule: CosineSchedule
    sharpness: float = 1.0
    radius: float = 0.1
    momentum: float = 0.9
    decay: float = 5e-4

    def __post_init__(self) -> None:
        """Refuse values that have no meaning.

        Raises:
            InputError: a number is negative, or the momentum is 1 or more.
        """
        check_sharpness(self.sharpness, self.radius)
        if not 0 <= self.momentum < 1 or self.decay < 0:
            raise InputError(
                "expected a momentum of at least 0 and below 1, and a decay of at least 0, found "
                f"{self.momentum} and {self.decay}"
            )

    @property
    def losses_per_step(self) -> int:
        """Number of losses that a step needs, each with its gradient."""
        return 2 if self.sharpness and self.radius else 1

    def init(self, values: FloatArray, seed: int) -> SaptState:
        """Return the state before the first step."""
        return SaptState(0, seed, values.astype(np.float32), np.zeros(values.shape))

    def step(self, state: SaptState, slope: Slope) -> tuple[SaptState, StepRecord]:
        """Return the next state, and the step in numbers; `slope` is called once or twice."""
        loss, gradient = slope(state.values)
        norm, rise, direction = float(np.linalg.norm(gradient)), 0.0, gradient
        if self.sharpness and self.radius and norm > TINY:
            steep_loss, steep = slope(perturb(state.values, gradient, self.radius))
            rise, direction = steep_loss - loss, mix_gradients(gradient, steep, self.sharpness)
        direction = direction + self.decay * state.values.astype(np.float64)
        rate = self.schedule.get_rate(state.step)
        values, velocity = take_velocity_step(state.values, state.velocity, direction, rate, self.momentum)
        return SaptState(state.step + 1, state.seed, values, velocity), StepRecord(loss, rise, norm)


def check_sharpness(sharpness: float, radius: float) -> None:
    """Check λ and ρ.

    Raises:
        InputError: one is negative.
    """
    if not (sharpness >= 0 and radius >= 0):
        raise InputError(f"expected sharpness and rho of at least 0, found {sharpness} and {radius}")


def perturb(values: FloatArray, gradient: FloatArray, radius: float) -> FloatArray:
    """Return `values + radius · gradient / ‖gradient‖`, float32."""
    perturbed: FloatArray = values + radius / np.linalg.norm(gradient) * gradient
    return perturbed.astype(np.float32)


def mix_gradients(gradient: FloatArray, steep: FloatArray, sharpness: float) -> FloatArray:
    """Return `(1 − λ) · gradient + λ · steep`, float64."""
    mixed: FloatArray = (1 - sharpness) * gradient.astype(np.float64) + sharpness * steep.astype(np.float64)
    return mixed
