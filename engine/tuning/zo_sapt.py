"""SAPT without gradients: two rounds of SPSA for each step, the second at the perturbed values.

The gradient is the mean of q two-sided estimates (SPSA). SAPT's perturbation follows it, and q further
estimates there give the direction of the step. That is fozo's choice: the paper trains with gradients, and
SharpZO (NeurIPS 2025), the published precedent, searches with CMA-ES first. The values may be a context or
any parameters that one is computed from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ..model import FloatArray
from ..search.gradient_steps import TINY
from ..search.spsa import draw_segmented_direction, estimate_gradient
from ..search.spsa_gains import PowerGains, check_pairs, clip_norm
from ..state import State
from .sapt import StepRecord, check_sharpness, mix_gradients, perturb

# Returns the loss `[C]` of each candidate `[C, …]`, on the same images in every call of a step.
Losses = Callable[[FloatArray], FloatArray]


@dataclass(frozen=True)
class ZoSaptState(State):
    """State of ZO-SAPT: the tuned values, float32 of any shape."""

    values: FloatArray


@dataclass(frozen=True)
class ZoSapt:
    """Sharpness-aware tuning from losses alone.

    Attributes:
        gains: step sizes and perturbation sizes.
        pairs: q, two-sided estimates in each of the two rounds; a step costs 4 q losses.
        sharpness: λ; 0 is plain SPSA, and a step costs 2 q losses.
        radius: ρ, length of SAPT's perturbation.
        clip: scale a gradient of δ entries that is longer than √δ down to that.
    """

    gains: PowerGains = field(default_factory=PowerGains)
    pairs: int = 5
    sharpness: float = 1.0
    radius: float = 0.1
    clip: bool = True

    def __post_init__(self) -> None:
        """Refuse values that have no meaning.

        Raises:
            InputError: there is no pair, or a number is not above 0.
        """
        check_sharpness(self.sharpness, self.radius)
        check_pairs(self.pairs, self.gains)

    @property
    def losses_per_step(self) -> int:
        """Number of losses that a step needs."""
        return 2 * self.pairs * (2 if self.sharpness and self.radius else 1)

    def init(self, values: FloatArray, seed: int) -> ZoSaptState:
        """Return the state before the first step."""
        return ZoSaptState(0, seed, values.astype(np.float32))

    def step(self, state: ZoSaptState, losses: Losses) -> tuple[ZoSaptState, StepRecord]:
        """Return the next state, and the step in numbers; `losses` is called once or twice.

        The loss of the record is the mean over the candidates of the first round.
        """
        loss, gradient = self._estimate(state, state.values, losses, first=0)
        norm, rise, direction = float(np.linalg.norm(gradient)), 0.0, gradient
        if self.sharpness and self.radius and norm > TINY:
            point = perturb(state.values, gradient, self.radius)
            steep_loss, steep = self._estimate(state, point, losses, first=self.pairs)
            rise, direction = steep_loss - loss, mix_gradients(gradient, steep, self.sharpness)
        direction = clip_norm(direction) if self.clip else direction
        values = (state.values - self.gains.get_rate(state.step + 1) * direction).astype(np.float32)
        return ZoSaptState(state.step + 1, state.seed, values), StepRecord(loss, rise, norm)

    def _estimate(
        self, state: ZoSaptState, values: FloatArray, losses: Losses, first: int
    ) -> tuple[float, FloatArray]:
        """Return mean loss and mean estimate of the gradient around `values`, float64 of their shape.

        Args:
            state: decides the directions.
            values: the point.
            losses: of candidates.
            first: number of the first direction of this round.
        """
        directions = np.stack(
            [
                draw_segmented_direction(state.seed, state.step, first + pair, values.size)
                for pair in range(self.pairs)
            ]
        ).reshape(self.pairs, *values.shape)
        return estimate_gradient(
            values,
            directions,
            self.gains.get_size(state.step + 1),
            lambda candidates: losses(candidates.astype(np.float32)),
        )
