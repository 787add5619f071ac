"""FOA (ICML 2024) with exact gradients: its loss, descended on norms. Not forward-only."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from ..interface.method import Prediction, Step
from ..interface.method_options import option
from ..interface.request import Request
from ..model import ImageArray, ModelInfo, Slopes, SourceStatistics
from ..statistics.feature_statistics import Moments
from ..statistics.objective import compute_discrepancy, entropy
from ..statistics.output_slopes import derive_discrepancy, derive_entropy
from .norm_descent import DescentState, NormDescent, NormDescentBinding


@dataclass(frozen=True)
class FoaBp(NormDescent):
    """FOA's loss with means, `mean entropy + λ (mean (µ − µ_S)² + mean (σ − σ_S)²)`, descended on norms.

    FOA's paper reports it as its loss with back-propagation; no code of it was published.
    """

    name: ClassVar[str] = "foa_bp"

    rate: float = option(0.005, "η", low=0)
    discrepancy_weight: float = option(30.0, "λ, weight of the distance to the source statistics", low=0)

    def bind(self, model: ModelInfo) -> BoundFoaBp:
        """Return the method bound to a model.

        Raises:
            BundleError: the bundle lacks source statistics, tunable norms or a pull-back graph.
        """
        source = model.require_source(self.name)
        return BoundFoaBp(self, model, self.select_norms(model), source)


@dataclass(frozen=True, eq=False)
class BoundFoaBp(NormDescentBinding[FoaBp]):
    """FOA's loss on one model.

    Attributes:
        source: statistics of clean images.
    """

    source: SourceStatistics

    def step(self, state: DescentState, images: ImageArray) -> Step[DescentState]:
        """Predict, then take a step along the gradient of the loss of these predictions."""
        (outputs,) = yield Request(images, [self.norms.build_tunables(state.norms)])
        moments = Moments.of(outputs.features)
        weight = self.options.discrepancy_weight / self.source.mean.size
        slopes = Slopes(
            derive_entropy(outputs.logits) / len(images),
            weight / len(images) * derive_discrepancy(outputs.features, moments, self.source),
        )
        gradient = yield from self.pull_back(state.norms, images, slopes)
        mean_entropy = float(entropy(outputs.logits).mean())
        distance = compute_discrepancy(moments, self.source)
        prediction = Prediction(
            outputs.logits,
            1,
            mean_entropy + weight * distance,
            {"entropy": mean_entropy, "discrepancy": distance},
            pull_backs=1,
        )
        return prediction, self.descend(replace(state, step=state.step + 1), gradient)
