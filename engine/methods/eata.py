"""EATA (ICML 2022): entropy descent on reliable images that are not redundant. Not forward-only."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ..errors import BundleError
from ..interface.method import Prediction, Step, optional_array
from ..interface.method_options import option
from ..interface.request import Request
from ..model import FloatArray, ImageArray, ModelInfo, Slopes
from ..statistics.activation_shift import update_average
from ..statistics.objective import entropy, softmax
from ..statistics.output_slopes import derive_entropy
from .norm_descent import DescentState, NormDescent, NormDescentBinding

AVERAGE_DECAY = 0.9


@dataclass(frozen=True)
class EataState(DescentState):
    """Tuned norms, and what was predicted so far.

    Attributes:
        probabilities: running average of the predictions that counted, float64 `[K]`; None before the first.
    """

    probabilities: FloatArray | None = optional_array("classes")


@dataclass(frozen=True)
class Eata(NormDescent):
    """EATA, as released.

    An image counts if its entropy is below a margin and its prediction unlike the average so far. It weighs
    `exp(margin − entropy)`. The loss adds `fisher_weight · Σ w Δ²` over the changes Δ of the norms, where w
    is their Fisher information on clean images. Without this term the authors call the method ETA.
    """

    name: ClassVar[str] = "eata"

    margin: float = option(0.4, "entropy below which an image counts, as a share of ln K", low=0, high=1)
    similarity: float = option(
        0.05, "cosine of prediction and average above which an image is redundant", low=0, high=1
    )
    fisher_weight: float = option(
        2000.0,
        "weight of the changes of norms on which predictions of clean images depend; 0: none, which is ETA",
        low=0,
    )

    def bind(self, model: ModelInfo) -> BoundEata:
        """Return the method bound to a model.

        Raises:
            BundleError: the bundle lacks tunable norms, a pull-back graph or, where `fisher_weight` is not 0,
                the Fisher information of clean images.
        """
        norms = self.select_norms(model)
        if not self.fisher_weight:
            return BoundEata(self, model, norms, norms.create_zeros())
        if model.source is None or model.source.fisher is None:
            raise BundleError(
                f"{self.name} needs the Fisher information of clean images, and the bundle of {model.name} "
                "has none for this graph and these classes; compute it with: fozo source BUNDLE DIR, or "
                "leave the term out with fisher_weight=0, which is ETA"
            )
        return BoundEata(self, model, norms, model.source.fisher[norms.rows].astype(np.float64))


@dataclass(frozen=True, eq=False)
class BoundEata(NormDescentBinding[Eata]):
    """EATA on one model.

    Attributes:
        fisher: Fisher information of the tuned norms, float64 `[T, 2, W]`; zeros for ETA.
    """

    fisher: FloatArray

    def init(self, seed: int) -> EataState:
        """Return unchanged norms; nothing is random."""
        return EataState(0, seed, self.norms.create_zeros(np.float32), self.norms.create_zeros())

    def step(self, state: EataState, images: ImageArray) -> Step[EataState]:
        """Predict, then take a step for the images that count, if there are any."""
        options = self.options
        (outputs,) = yield Request(images, [self.norms.build_tunables(state.norms)])
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
            gradient = yield from self.pull_back(state.norms, images, slopes)
            gradient = gradient + 2 * options.fisher_weight * self.fisher * state.norms
            mean = probabilities[counted].mean(axis=0)
            average = update_average(state.probabilities, mean, AVERAGE_DECAY)
            next_state = replace(self.descend(next_state, gradient), probabilities=average)
        diagnostics = {"entropy": float(entropies.mean()), "counted": float(counted.mean())}
        pull_backs = int(counted.any())
        return Prediction(logits, 1, diagnostics=diagnostics, pull_backs=pull_backs), next_state


def _compute_cosines(probabilities: FloatArray, average: FloatArray) -> FloatArray:
    lengths = np.linalg.norm(probabilities, axis=1) * np.linalg.norm(average)
    cosines: FloatArray = probabilities @ average / lengths
    return cosines
