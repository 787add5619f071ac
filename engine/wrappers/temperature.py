"""Temperature of any method: probabilities that are less sure, or surer, for the same predicted classes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..interface.method import Prediction, State, Step
from ..interface.method_options import option
from ..interface.request import Requests
from ..model import ImageArray, ModelInfo
from .wrapper import BoundWrapper, Wrapper


@dataclass(frozen=True)
class Temperature(Wrapper):
    """Another method, whose logits are divided by a temperature (Guo et al., ICML 2017, section 4.2).

    The method itself adapts as without it.
    """

    temperature: float = option(
        1.1, "number that logits are divided by: above 1 where predictions are too sure", low=0.01, high=100
    )

    def bind(self, model: ModelInfo) -> BoundTemperature:
        """Return the wrapped method bound to a model.

        Raises:
            BundleError: the bundle lacks something the method needs.
        """
        return BoundTemperature(self, model, self.method.bind(model))


@dataclass(frozen=True, eq=False)
class BoundTemperature(BoundWrapper[Temperature]):
    """Temperature of a method on one model."""

    def init(self, seed: int) -> State:
        """Return the method's initial state."""
        state: State = self.inner.init(seed)
        return state

    def step(self, state: State, images: ImageArray) -> Step[State]:
        """Make the method's step, and scale what it predicts."""
        prediction, next_state = yield from self.inner.step(state, images)
        return self._scale(prediction), next_state

    def predict(self, state: State, images: ImageArray) -> Requests[Prediction]:
        """Predict with the current state of the method, and scale that."""
        prediction = yield from self.inner.predict(state, images)
        return self._scale(prediction)

    def _scale(self, prediction: Prediction) -> Prediction:
        logits = (prediction.logits / self.options.temperature).astype(np.float32)
        return replace(prediction, logits=logits)
