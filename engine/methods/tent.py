"""TENT (ICLR 2021): norms descend the mean entropy of the predictions. Not forward-only."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ..interface.method import Prediction, Step
from ..interface.request import Request
from ..model import ImageArray, ModelInfo, Slopes
from ..statistics.objective import entropy
from .norm_descent import DescentState, NormDescent, NormDescentBinding


@dataclass(frozen=True)
class Tent(NormDescent):
    """TENT: stochastic gradient descent of the mean entropy on gains and biases of norms.

    The official code also tunes the final norm, which exported graphs keep fixed. The rate is that of FOA's
    experiments with ViT-B.
    """

    name: ClassVar[str] = "tent"

    @property
    def forwards(self) -> int:
        """Forwards that one step uses beside that of the gradient."""
        return 0

    def bind(self, model: ModelInfo) -> BoundTent:
        """Return the method bound to a model.

        Raises:
            BundleError: the bundle lacks tunable norms or a pull-back graph.
        """
        return BoundTent(self, model, self.select_norms(model))


@dataclass(frozen=True, eq=False)
class BoundTent(NormDescentBinding[Tent]):
    """TENT on one model."""

    def step(self, state: DescentState, images: ImageArray) -> Step[DescentState]:
        """Predict, and take a step along the gradient of the mean entropy of these predictions."""
        slopes = Slopes(entropy_weights=np.ones(len(images)))
        (pulled,) = yield Request(images, [self.norms.build_tunables(state.norms)], slopes)
        gradient = self.select_gradient(pulled) / len(images)
        loss = float(entropy(pulled.logits).mean())
        prediction = Prediction(pulled.logits, 0, loss, {"entropy": loss}, pull_backs=1)
        return prediction, self.descend(replace(state, step=state.step + 1), gradient)
