"""Example of a method: a (1+1) evolution strategy over the gains and biases of norms.

Each batch is forwarded twice: with the current values, and with a mutation of them. The values with the
smaller loss predict the batch and survive. The step size follows the 1/5 success rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from fozo.methods import (
    Binding,
    FloatArray,
    ImageArray,
    ModelInfo,
    Moments,
    Outputs,
    Prediction,
    Request,
    Requests,
    SourceStatistics,
    State,
    Step,
    compute_alignment_loss,
    compute_discrepancy,
    draw_gaussian_direction,
    entropy,
    option,
    validate,
)

GROWTH = 1.5  # of the step size after a success; four failures undo it


@dataclass(frozen=True)
class OnePlusOneState(State):
    """Everything that the method learns.

    Attributes:
        norms: addends to gains and biases, float32 `[M, 2, W]`.
        sigma: standard deviation of the next mutation.
    """

    norms: FloatArray
    sigma: float


@dataclass(frozen=True)
class OnePlusOne:
    """(1+1) evolution strategy: mutate gains and biases of norms, keep what lowers the loss."""

    name: ClassVar[str] = "one_plus_one"

    sigma: float = option(0.02, "standard deviation of the first mutation", low=0)
    discrepancy_weight: float = option(0.4, "λ, weight of the distance to the source statistics", low=0)

    def __post_init__(self) -> None:
        validate(self)

    @property
    def forwards(self) -> int:
        """Forwards that one step uses."""
        return 2

    def bind(self, model: ModelInfo) -> BoundOnePlusOne:
        """Check once what the model must have, and return the method bound to it.

        Raises:
            BundleError: the model has no tunable norms, or its bundle has no source statistics.
        """
        model.require_tunable("norms", self.name)
        return BoundOnePlusOne(self, model, model.require_source(self.name))


@dataclass(frozen=True, eq=False)
class BoundOnePlusOne(Binding[OnePlusOne]):
    """The evolution strategy on one model.

    Attributes:
        source: statistics of the features of clean images.
    """

    source: SourceStatistics

    def init(self, seed: int) -> OnePlusOneState:
        """Return the state before the first batch: the network as it was trained."""
        shape = (len(self.model.norms), 2, max(self.model.norms.values()))
        return OnePlusOneState(0, seed, np.zeros(shape, np.float32), float(self.options.sigma))

    def step(self, state: OnePlusOneState, images: ImageArray) -> Step[OnePlusOneState]:
        """Predict with the better of parent and mutant, which survives."""
        # Randomness is a function of seed and step, so a checkpoint needs no generator.
        mutation = draw_gaussian_direction(state.seed, state.step, 0, state.norms.shape)
        mutant = state.norms + np.float32(state.sigma) * mutation
        outputs = yield Request(images, [{"norms": state.norms[None]}, {"norms": mutant[None]}])

        losses = [self._compute_loss(candidate) for candidate in outputs]
        best = int(np.argmin(losses))  # 0 is the parent, 1 the mutant
        norms = (state.norms, mutant)[best]
        sigma = state.sigma * (GROWTH**-0.25, GROWTH)[best]
        prediction = Prediction(outputs[best].logits, 2, losses[best], diagnostics={"sigma": sigma})
        return prediction, OnePlusOneState(state.step + 1, state.seed, norms, sigma)

    def predict(self, state: OnePlusOneState, images: ImageArray) -> Requests[Prediction]:
        """Predict with the current values, without learning."""
        (outputs,) = yield Request(images, [{"norms": state.norms[None]}])
        return Prediction(outputs.logits, 1)

    def _compute_loss(self, outputs: Outputs) -> float:
        """Return the loss of FOA and FOZO: distance to the source statistics, and entropy."""
        distance = compute_discrepancy(
            Moments.of(outputs.features), self.source, widths=self.model.feature_widths
        )
        return compute_alignment_loss(
            distance, entropy(outputs.logits), self.options.discrepancy_weight, "sum"
        )
