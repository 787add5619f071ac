"""ZIP, zeroth-order intrinsic-dimensional prompt tuning (Park et al., ICLR 2025): a context from losses.

It is SPSA in a few hundred parameters: the mean of several two-sided estimates of the gradient, scaled down
to √δ where it is longer, and gains that shrink with the step. Constants and order of the parameters are those
of the official code, which also has the momentum of BlackVIP (`spsa-gc`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..errors import InputError
from ..model import FloatArray
from ..search.spsa import draw_segmented_direction, estimate_gradient
from ..search.spsa_gains import PowerGains, clip_norm
from ..state import State
from .low_rank_context import LowRankContext
from .sapt import StepRecord
from .zo_sapt import Losses


@dataclass(frozen=True)
class ZipState(State):
    """State of ZIP.

    Attributes:
        start: the context before the first step, float32 `[M, D]`.
        parameters: float64 `[δ]`.
        velocity: sum of the gradients, each weighted with a power of the momentum, float64 `[δ]`.
        values: the context that the parameters stand for, float32 `[M, D]`.
    """

    start: FloatArray
    parameters: FloatArray
    velocity: FloatArray
    values: FloatArray


@dataclass(frozen=True)
class Zip:
    """Zeroth-order tuning in ZIP's parameters.

    Attributes:
        space: the parameters, and the contexts that they stand for.
        gains: step sizes and perturbation sizes.
        pairs: two-sided estimates of a step; it costs twice as many losses.
        clip: scale an estimate of δ entries that is longer than √δ down to that.
        momentum: β of `v ← β v + g`, where a step goes along `g + β v`; 0.8 in `spsa-gc`.
    """

    space: LowRankContext
    gains: PowerGains = field(default_factory=PowerGains)
    pairs: int = 5
    clip: bool = True
    momentum: float = 0.0

    def __post_init__(self) -> None:
        """Refuse values that have no meaning.

        Raises:
            InputError: there is no pair, perturbations have no size, or the momentum is not in [0, 1).
        """
        if self.pairs < 1 or not self.gains.size > 0 or not 0 <= self.momentum < 1:
            raise InputError(
                "expected one pair at least, perturbations above 0, and a momentum of at least 0 and below "
                f"1, found {self.pairs}, {self.gains.size} and {self.momentum}"
            )

    @property
    def losses_per_step(self) -> int:
        """Number of losses that a step needs."""
        return 2 * self.pairs

    def init(self, values: FloatArray, seed: int) -> ZipState:
        """Return the state before the first step."""
        start, parameters = values.astype(np.float32), self.space.draw_parameters(seed)
        return ZipState(0, seed, start, parameters, np.zeros(parameters.shape), start)

    def step(self, state: ZipState, losses: Losses) -> tuple[ZipState, StepRecord]:
        """Return the next state, and the step in numbers; `losses` is called once, with all candidates.

        The loss of the record is the mean over the candidates.
        """
        t = state.step + 1
        directions = np.stack(
            [
                draw_segmented_direction(state.seed, state.step, pair, self.space.size)
                for pair in range(self.pairs)
            ]
        )
        loss, gradient = estimate_gradient(
            state.parameters,
            directions,
            self.gains.get_size(t),
            lambda parameters: losses(self.space.compute_contexts(parameters, state.start)),
        )
        norm = float(np.linalg.norm(gradient))
        gradient = clip_norm(gradient) if self.clip else gradient
        parameters, velocity = take_gained_step(
            state.parameters, state.velocity, gradient, self.gains.get_rate(t), self.momentum
        )
        values = self.space.compute_contexts(parameters[None], state.start)[0]
        next_state = ZipState(t, state.seed, state.start, parameters, velocity, values)
        return next_state, StepRecord(loss, 0.0, norm)


def take_gained_step(
    values: FloatArray, velocity: FloatArray, gradient: FloatArray, rate: float, momentum: float
) -> tuple[FloatArray, FloatArray]:
    """Return values and velocity after a step of `spsa-gc` (BlackVIP, CVPR 2023).

    `v ← momentum · v + gradient`, `values ← values − rate · (gradient + momentum · v)`.
    Momentum 0 is plain descent.
    """
    velocity = momentum * velocity + gradient
    return values - rate * (gradient + momentum * velocity), velocity
