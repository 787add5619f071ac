"""FOA (ICML 2024) with exact gradients: its loss, descended on norms. Not forward-only."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ..interface.method import Binding, Prediction, State, Step
from ..interface.method_options import option, validate
from ..interface.request import Request, Requests
from ..model import NORMS, FloatArray, ImageArray, ModelInfo, Slopes, SourceStatistics
from ..search.gradient_steps import take_velocity_step
from ..search.tuned_norms import TunedNorms
from ..statistics.feature_statistics import Moments
from ..statistics.objective import compute_discrepancy, entropy
from ..statistics.output_slopes import derive_discrepancy, derive_entropy


@dataclass(frozen=True)
class FoaBpState(State):
    """Tuned norms.

    Attributes:
        norms: float32 `[T, 2, D]`, addends to gain and bias.
        velocity: of the descent, float64, of this shape.
    """

    norms: FloatArray
    velocity: FloatArray


@dataclass(frozen=True)
class FoaBp:
    """FOA's loss with means, `mean entropy + λ (mean (µ − µ_S)² + mean (σ − σ_S)²)`, descended on norms.

    FOA's paper reports it as its loss with back-propagation; no code of it was published.
    """

    name: ClassVar[str] = "foa_bp"

    first_block: int = option(0, "first block whose norms are tuned, from 0", low=0)
    frozen_last_blocks: int = option(0, "blocks at the end whose norms are not tuned", low=0)
    rate: float = option(0.005, "η", low=0)
    momentum: float = option(0.9, "share of the old velocity that is kept", low=0, high=0.999)
    discrepancy_weight: float = option(30.0, "λ, weight of the distance to the source statistics", low=0)

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

    def bind(self, model: ModelInfo) -> BoundFoaBp:
        """Return the method bound to a model.

        Raises:
            BundleError: the bundle lacks source statistics, tunable norms or a pull-back graph.
        """
        source = model.require_source(self.name)
        model.require_gradient(NORMS, self.name)
        norms = TunedNorms.select(model, self.first_block, self.frozen_last_blocks, self.name)
        return BoundFoaBp(self, model, norms, source)


@dataclass(frozen=True, eq=False)
class BoundFoaBp(Binding[FoaBp]):
    """FOA's loss on one model.

    Attributes:
        norms: that are tuned.
        source: statistics of clean images.
    """

    norms: TunedNorms
    source: SourceStatistics

    def init(self, seed: int) -> FoaBpState:
        """Return unchanged norms; nothing is random."""
        return FoaBpState(0, seed, self.norms.create_zeros(np.float32), self.norms.create_zeros())

    def step(self, state: FoaBpState, images: ImageArray) -> Step[FoaBpState]:
        """Predict, then take a step along the gradient of the loss of these predictions."""
        options, tunables = self.options, self.norms.build_tunables(state.norms)
        (outputs,) = yield Request(images, [tunables])
        moments = Moments.of(outputs.features)
        weight = options.discrepancy_weight / self.source.mean.size
        slopes = Slopes(
            derive_entropy(outputs.logits) / len(images),
            weight / len(images) * derive_discrepancy(outputs.features, moments, self.source),
        )
        (pulled,) = yield Request(images, [tunables], slopes)
        assert pulled.gradients is not None
        gradient = pulled.gradients[NORMS][self.norms.rows]
        norms, velocity = take_velocity_step(
            state.norms, state.velocity, gradient, options.rate, options.momentum
        )
        mean_entropy = float(entropy(outputs.logits).mean())
        distance = compute_discrepancy(moments, self.source)
        prediction = Prediction(
            outputs.logits,
            1,
            mean_entropy + weight * distance,
            {"entropy": mean_entropy, "discrepancy": distance},
            pull_backs=1,
        )
        return prediction, replace(state, step=state.step + 1, norms=norms, velocity=velocity)

    def predict(self, state: FoaBpState, images: ImageArray) -> Requests[Prediction]:
        """Predict with the current norms."""
        (outputs,) = yield Request(images, [self.norms.build_tunables(state.norms)])
        return Prediction(outputs.logits, 1, diagnostics={"entropy": float(entropy(outputs.logits).mean())})
