"""BlackVIP (Oh et al., CVPR 2023): a decoder that writes a prompt into every image, learnt from losses.

The gradient is the mean of several two-sided estimates (SPSA), and steps have momentum (`spsa-gc`). The
decoder reads features of a frozen encoder. Its batch norms use the moments of the batch in every candidate,
and their running moments follow, candidate by candidate in the order of the official code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ..model import FloatArray
from ..runtime.image_decoder import (
    DecoderLayout,
    Moments,
    decode_batch,
    start_moments,
)
from ..search.spsa import compute_quotients, draw_segmented_direction
from ..search.spsa_gains import PowerGains, check_pairs
from ..state import State
from .sapt import StepRecord
from .zip import take_gained_step


@dataclass(frozen=True)
class EncodedBatch:
    """Images of a step.

    Attributes:
        features: of the encoder, `[N, Z]`.
        compute_loss: returns the loss under addends to normalised images, `[N, H, W, 3]`.
    """

    features: FloatArray
    compute_loss: Callable[[FloatArray], float]


@dataclass(frozen=True)
class BlackvipState(State):
    """State of BlackVIP.

    Attributes:
        values: parameters of the decoder, float64 `[δ]`.
        velocity: sum of the gradients, each weighted with a power of the momentum, float64 `[δ]`.
        moments: running moments of its batch norms.
    """

    values: FloatArray
    velocity: FloatArray
    moments: Moments


@dataclass(frozen=True)
class Blackvip:
    """Search for a decoder.

    Attributes:
        layout: of the decoder.
        gains: step sizes and perturbation sizes.
        pairs: two-sided estimates of a step; it costs twice as many losses.
        momentum: β of `v ← β v + g`, where a step goes along `g + β v`.
    """

    layout: DecoderLayout
    gains: PowerGains = field(default_factory=PowerGains)
    pairs: int = 5
    momentum: float = 0.8

    def __post_init__(self) -> None:
        """Refuse values that have no meaning.

        Raises:
            InputError: there is no pair, or perturbations have no size.
        """
        check_pairs(self.pairs, self.gains)

    @property
    def losses_per_step(self) -> int:
        """Number of losses that a step needs."""
        return 2 * self.pairs

    def init(self, values: FloatArray, seed: int) -> BlackvipState:
        """Return the state before the first step."""
        parameters = values.astype(np.float64)
        return BlackvipState(0, seed, parameters, np.zeros(parameters.shape), start_moments(self.layout))

    def step(self, state: BlackvipState, batch: EncodedBatch) -> tuple[BlackvipState, StepRecord]:
        """Return the next state, and the step in numbers; the loss is the mean over the candidates."""
        t, moments = state.step + 1, state.moments
        size, gradient, losses = self.gains.get_size(t), np.zeros(state.values.shape), []
        for pair in range(self.pairs):
            direction = draw_segmented_direction(state.seed, state.step, pair, self.layout.size)
            for sign in (1, -1):
                candidate = state.values + sign * size * direction.astype(np.float64)
                prompts, moments = decode_batch(self.layout, candidate, batch.features, moments)
                losses.append(batch.compute_loss(prompts))
            gradient += compute_quotients(losses[-2] - losses[-1], direction, 2 * size) / self.pairs
        values, velocity = take_gained_step(
            state.values, state.velocity, gradient, self.gains.get_rate(t), self.momentum
        )
        record = StepRecord(float(np.mean(losses)), 0.0, float(np.linalg.norm(gradient)))
        return BlackvipState(t, state.seed, values, velocity, moments), record
