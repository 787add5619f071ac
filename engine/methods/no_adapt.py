"""No adaptation: the frozen network, and the line that every method has to beat."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from ..interface.method import Binding, Prediction, State, Step
from ..interface.request import Request, Requests
from ..model import ImageArray, ModelInfo


@dataclass(frozen=True)
class NoAdapt:
    """The frozen network: one forward, nothing carried."""

    name: ClassVar[str] = "no_adapt"

    @property
    def forwards(self) -> int:
        """Forwards that one step uses."""
        return 1

    def bind(self, model: ModelInfo) -> BoundNoAdapt:
        """Return the method bound to a model; any model will do."""
        return BoundNoAdapt(self, model)


@dataclass(frozen=True, eq=False)
class BoundNoAdapt(Binding[NoAdapt]):
    """The frozen network of one model."""

    def init(self, seed: int) -> State:
        """Return a state that only counts."""
        return State(step=0, seed=seed)

    def step(self, state: State, images: ImageArray) -> Step[State]:
        """Predict with the network as it is."""
        prediction = yield from self.predict(state, images)
        return prediction, replace(state, step=state.step + 1)

    def predict(self, state: State, images: ImageArray) -> Requests[Prediction]:
        """Predict with the network as it is."""
        (outputs,) = yield Request(images)
        return Prediction(outputs.logits, 1)
