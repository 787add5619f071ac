"""EATA (ICML 2022): entropy descent on reliable images that are not redundant. Not forward-only."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ..interface.method import Binding, Prediction, State, Step, optional_array
from ..interface.method_options import option, validate
from ..interface.request import Request, Requests
from ..model import NORMS, FloatArray, ImageArray, ModelInfo, Slopes
from ..search.gradient_steps import take_velocity_step
from ..search.tuned_norms import TunedNorms
from ..statistics.objective import entropy, softmax
from ..statistics.output_slopes import derive_entropy

AVERAGE_DECAY = 0.9


@dataclass(frozen=True)
class EataState(State):
    """Tuned norms, and what was predicted so far.

    Attributes:
        norms: float32 `[T, 2, D]`, addends to gain and bias.
        velocity: of the descent, float64, of this shape.
        probabilities: running average of the predictions that counted, float64 `[K]`; None before the first.
    """

    norms: FloatArray
    velocity: FloatArray
    probabilities: FloatArray | None = optional_array("classes")


@dataclass(frozen=True)
class Eata:
    """EATA without its Fisher regulariser, which its authors call ETA.

    An image counts if its entropy is below a margin and its prediction unlike the average so far. It weighs
    `exp(margin − entropy)`.
    """

    name: ClassVar[str] = "eata"

    first_block: int = option(0, "first block whose norms are tuned, from 0", low=0)
    frozen_last_blocks: int = option(0, "blocks at the end whose norms are not tuned", low=0)
    rate: float = option(0.001, "η", low=0)
    momentum: float = option(0.9, "share of the old velocity that is kept", low=0, high=0.999)
    margin: float = option(0.4, "entropy below which an image counts, as a share of ln K", low=0, high=1)
    similarity: float = option(
        0.05, "cosine of prediction and average above which an image is redundant", low=0, high=1
    )

    def __post_init__(self) -> None:
        validate(self)

    @property
    def forwards(self) -> int:
        """Forwards that one step uses."""
        return 1

    @property
    def pull_backs(self) -> int:
        """Computations of exact gradients that one step uses."""
        return 1

    def bind(self, model: ModelInfo) -> BoundEata:
        """Return the method bound to a model.

        Raises:
            BundleError: the bundle lacks tunable norms or a pull-back graph.
        """
        model.require_gradient(NORMS, self.name)
        norms = TunedNorms.select(model, self.first_block, self.frozen_last_blocks, self.name)
        return BoundEata(self, model, norms)


@dataclass(frozen=True, eq=False)
class BoundEata(Binding[Eata]):
    """EATA on one model.

    Attributes:
        norms: that are tuned.
    """

    norms: TunedNorms

    def init(self, seed: int) -> EataState:
        """Return unchanged norms; nothing is random."""
        return EataState(0, seed, self.norms.create_zeros(np.float32), self.norms.create_zeros())

    def step(self, state: EataState, images: ImageArray) -> Step[EataState]:
        """Predict, then take a step for the images that count, if there are any."""
        options, tunables = self.options, self.norms.build_tunables(state.norms)
        (outputs,) = yield Request(images, [tunables])
        logits = outputs.logits
        entropies, probabilities = entropy(logits), softmax(logits)
        margin = options.margin * math.log(self.model.classes)
        counted = entropies < margin
        if state.probabilities is not None:
            counted &= np.abs(_compute_cosines(probabilities, state.probabilities)) < options.similarity
        next_state = replace(state, step=state.step + 1)
        if counted.any():
            weights = np.where(counted, np.exp(margin - entropies), 0) / counted.sum()
            slopes = Slopes(weights[:, None] * derive_entropy(logits))
            (pulled,) = yield Request(images, [tunables], slopes)
            assert pulled.gradients is not None
            norms, velocity = take_velocity_step(
                state.norms,
                state.velocity,
                pulled.gradients[NORMS][self.norms.rows],
                options.rate,
                options.momentum,
            )
            mean = probabilities[counted].mean(axis=0)
            if state.probabilities is not None:
                mean = AVERAGE_DECAY * state.probabilities + (1 - AVERAGE_DECAY) * mean
            next_state = replace(next_state, norms=norms, velocity=velocity, probabilities=mean)
        diagnostics = {"entropy": float(entropies.mean()), "counted": float(counted.mean())}
        pull_backs = int(counted.any())
        return Prediction(logits, 1, diagnostics=diagnostics, pull_backs=pull_backs), next_state

    def predict(self, state: EataState, images: ImageArray) -> Requests[Prediction]:
        """Predict with the current norms."""
        (outputs,) = yield Request(images, [self.norms.build_tunables(state.norms)])
        return Prediction(outputs.logits, 1, diagnostics={"entropy": float(entropy(outputs.logits).mean())})


def _compute_cosines(probabilities: FloatArray, average: FloatArray) -> FloatArray:
    lengths = np.linalg.norm(probabilities, axis=1) * np.linalg.norm(average)
    cosines: FloatArray = probabilities @ average / lengths
    return cosines
