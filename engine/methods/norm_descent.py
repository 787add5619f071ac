"""Gradient descent on norms: options, state and steps that methods with exact gradients share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Generic, TypeVar

import numpy as np

from ..interface.method import Binding, Prediction, State
from ..interface.method_options import option, validate
from ..interface.request import Request, Requests
from ..model import NORMS, FloatArray, ImageArray, ModelInfo, Outputs, Slopes
from ..search.gradient_steps import take_velocity_step
from ..search.tuned_norms import TunedNorms
from ..statistics.objective import entropy


@dataclass(frozen=True)
class DescentState(State):
    """Tuned norms.

    Attributes:
        norms: float32 `[T, 2, D]`, addends to gain and bias.
        velocity: of the descent, float64, of this shape.
    """

    norms: FloatArray
    velocity: FloatArray


@dataclass(frozen=True)
class NormDescent:
    """Base of the options of methods that descend a loss on gains and biases of norms by SGD."""

    name: ClassVar[str]

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

    def select_norms(self, model: ModelInfo) -> TunedNorms:
        """Return the norms of a model that are tuned.

        Raises:
            BundleError: the bundle lacks tunable norms or a pull-back graph.
        """
        model.require_gradient(NORMS, self.name)
        return TunedNorms.select(model, self.first_block, self.frozen_last_blocks, self.name)


DescentT = TypeVar("DescentT", bound=NormDescent)
DescentStateT = TypeVar("DescentStateT", bound=DescentState)


@dataclass(frozen=True, eq=False)
class NormDescentBinding(Binding[DescentT], Generic[DescentT]):  # type: ignore[type-var]  # bind is theirs
    """Base of these methods on one model.

    Attributes:
        norms: that are tuned.
    """

    norms: TunedNorms

    def init(self, seed: int) -> DescentState:
        """Return unchanged norms."""
        return DescentState(0, seed, self.norms.create_zeros(np.float32), self.norms.create_zeros())

    def predict(self, state: DescentState, images: ImageArray) -> Requests[Prediction]:
        """Predict with the current norms."""
        (outputs,) = yield Request(images, [self.norms.build_tunables(state.norms)])
        return Prediction(outputs.logits, 1, diagnostics={"entropy": float(entropy(outputs.logits).mean())})

    def pull_back(self, norms: FloatArray, images: ImageArray, slopes: Slopes) -> Requests[FloatArray]:
        """Request the gradient of a loss with respect to the tuned norms, float64 `[T, 2, D]`.

        Args:
            norms: addends `[T, 2, D]` at which it is taken.
            images: uint8 `[N, H, W, 3]`.
            slopes: of the loss, for these images.
        """
        (pulled,) = yield Request(images, [self.norms.build_tunables(norms)], slopes)
        return self.select_gradient(pulled)

    def select_gradient(self, pulled: Outputs) -> FloatArray:
        """Return the gradient with respect to the tuned norms, float64 `[T, 2, D]`, of a pull-back."""
        assert pulled.gradients is not None
        return pulled.gradients[NORMS][self.norms.rows]

    def descend(self, state: DescentStateT, gradient: FloatArray) -> DescentStateT:
        """Return the state after a step along a gradient; it does not count as a step of the stream."""
        norms, velocity = take_velocity_step(
            state.norms, state.velocity, gradient, self.options.rate, self.options.momentum
        )
        return replace(state, norms=norms, velocity=velocity)
