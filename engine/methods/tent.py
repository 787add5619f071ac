"""TENT (ICLR 2021): norms descend the mean entropy of the predictions. Not forward-only."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ..interface.method import Binding, Prediction, State, Step
from ..interface.method_options import option, validate
from ..interface.request import Request, Requests
from ..model import NORMS, FloatArray, ImageArray, ModelInfo, Slopes
from ..search.gradient_steps import take_velocity_step
from ..search.tuned_norms import TunedNorms
from ..statistics.objective import entropy
from ..statistics.output_slopes import derive_entropy


@dataclass(frozen=True)
class TentState(State):
    """Tuned norms.

    Attributes:
        norms: float32 `[T, 2, D]`, addends to gain and bias.
        velocity: of the descent, float64, of this shape.
    """

    norms: FloatArray
    velocity: FloatArray


@dataclass(frozen=True)
class Tent:
    """TENT: stochastic gradient descent of the mean entropy on gains and biases of norms.

    The official code also tunes the final norm, which exported graphs keep fixed. The rate is that of FOA's
    experiments with ViT-B.
    """

    name: ClassVar[str] = "tent"

    first_block: int = option(0, "first block whose norms are tuned, from 0", low=0)
    frozen_last_blocks: int = option(0, "blocks at the end whose norms are not tuned", low=0)
    rate: float = option(0.001, "η", low=0)
    momentum: float = option(0.9, "share of the old velocity that is kept", low=0, high=0.999)

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

    def bind(self, model: ModelInfo) -> BoundTent:
        """Return the method bound to a model.

        Raises:
            BundleError: the bundle lacks tunable norms or a pull-back graph.
        """
        model.require_gradient(NORMS, self.name)
        norms = TunedNorms.select(model, self.first_block, self.frozen_last_blocks, self.name)
        return BoundTent(self, model, norms)


@dataclass(frozen=True, eq=False)
class BoundTent(Binding[Tent]):
    """TENT on one model.

    Attributes:
        norms: that are tuned.
    """

    norms: TunedNorms

    def init(self, seed: int) -> TentState:
        """Return unchanged norms; nothing is random."""
        return TentState(0, seed, self.norms.create_zeros(np.float32), self.norms.create_zeros())

    def step(self, state: TentState, images: ImageArray) -> Step[TentState]:
        """Predict, then take a step along the gradient of the mean entropy of these predictions."""
        tunables = self.norms.build_tunables(state.norms)
        (outputs,) = yield Request(images, [tunables])
        slopes = Slopes(derive_entropy(outputs.logits) / len(images))
        (pulled,) = yield Request(images, [tunables], slopes)
        assert pulled.gradients is not None
        gradient = pulled.gradients[NORMS][self.norms.rows]
        norms, velocity = take_velocity_step(
            state.norms, state.velocity, gradient, self.options.rate, self.options.momentum
        )
        loss = float(entropy(outputs.logits).mean())
        prediction = Prediction(outputs.logits, 1, loss, {"entropy": loss}, pull_backs=1)
        return prediction, replace(state, step=state.step + 1, norms=norms, velocity=velocity)

    def predict(self, state: TentState, images: ImageArray) -> Requests[Prediction]:
        """Predict with the current norms."""
        (outputs,) = yield Request(images, [self.norms.build_tunables(state.norms)])
        return Prediction(outputs.logits, 1, diagnostics={"entropy": float(entropy(outputs.logits).mean())})
