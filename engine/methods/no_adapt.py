"""No adaptation: the frozen network, and the line that every method has to beat."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from ..interface.method import Prediction, State
from ..model import Forward, ImageArray, ModelInfo


@dataclass(frozen=True)
class NoAdapt:
    """The frozen network: one forward, nothing carried."""

    name: ClassVar[str] = "no_adapt"

    @property
    def forwards(self) -> int:
        """Forwards that one step uses."""
        return 1

    def init(self, info: ModelInfo, seed: int) -> State:
        """A state that only counts."""
        return State(step=0, seed=seed)

    def step(self, state: State, images: ImageArray, network: Forward) -> tuple[Prediction, State]:
        """Predicts with the network as it is."""
        return self.predict(state, images, network), replace(state, step=state.step + 1)

    def predict(self, state: State, images: ImageArray, network: Forward) -> Prediction:
        """Predicts with the network as it is."""
        return Prediction(network(images).logits, 1)
