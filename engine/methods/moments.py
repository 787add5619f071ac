"""Moment matching: bring mean and variance of the head's input to those of clean images.

This is the global branch of QuAR (arXiv 2610.08358) at the one place where the engine sees features.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, cast

import numpy as np

from ..interface.method import Prediction, State, late_array
from ..interface.options import option, validate
from ..model import FloatArray, Forward, ImageArray, ModelInfo, Outputs
from ..statistics.objective import entropy


@dataclass(frozen=True)
class MomentsState(State):
    """What moment matching carries: moments of the last feature, in which later images weigh more.

    Attributes:
        mean: float64 `[F]`, or None before the first batch.
        variance: biased (weighted by the same weights), float64 `[F]`, or None before the first batch.
        concentration: sum of the squared weights of all images seen: 1 for one image, 1/n for n alike.
    """

    mean: FloatArray | None = late_array("feature_width")
    variance: FloatArray | None = late_array("feature_width")
    concentration: float = 1.0


@dataclass(frozen=True)
class MomentMatching:
    """Affine moment matching of the last feature f, per channel: `µ_S + √r · (f − µ)`, `r = σ_S² / (σ² + ε)`.

    Published are the clamp of r to at most 3, ε, the rate 0.1 of the running moments, and the full
    strength 1 of the global branch (QuAR also matches the inputs of quantisers inside the last four blocks,
    which are no outputs of the graph). Where that is silent, the choice is ours: r is clamped on both sides,
    the running variance is that of all images under the weights of the running mean, between batches too,
    and it is unbiased as σ_S² is. So batches may have any size: after a single image there is no variance
    yet, and only the mean is matched.
    """

    name: ClassVar[str] = "moments"

    update: Literal["inclusive", "lagged"] = option(
        "inclusive", "whether the running moments include the batch that is predicted"
    )
    decay: float = option(0.9, "share of the old running moments that is kept", low=0, high=1)
    gain: float = option(1.0, "λ, how far the features are moved; 1 is all the way", low=0)
    ratio_limit: float = option(
        3.0, "the ratio of variances at most, and its inverse at least; 1 matches the mean alone", low=1
    )
    variance_floor: float = option(1e-6, "ε, added to the running variance", low=0)

    def __post_init__(self) -> None:
        validate(self)

    @property
    def forwards(self) -> int:
        """Forwards that one step uses."""
        return 1

    def init(self, info: ModelInfo, seed: int) -> MomentsState:
        """Nothing seen yet.

        Raises:
            BundleError: the bundle has no source statistics for this graph.
        """
        info.require_source(self.name)
        return MomentsState(step=0, seed=seed)

    def step(
        self, state: MomentsState, images: ImageArray, network: Forward
    ) -> tuple[Prediction, MomentsState]:
        """Predicts with matched features, and takes the unmatched ones into the running moments."""
        outputs = network(images)
        following = self._updated(state, outputs.features[:, -1])
        used = following if self.update == "inclusive" else state
        return self._matched(outputs, used, network.info), following

    def predict(self, state: MomentsState, images: ImageArray, network: Forward) -> Prediction:
        """Predicts with features matched by what the running moments are now."""
        return self._matched(network(images), state, network.info)

    def _updated(self, state: MomentsState, features: FloatArray) -> MomentsState:
        """The moments of a mixture: `decay` parts of what was, the rest of this batch."""
        features = features.astype(np.float64)
        mean, variance = features.mean(axis=0), features.var(axis=0)
        concentration = 1 / len(features)
        if state.mean is not None and state.variance is not None:
            old, new = self.decay, 1 - self.decay
            variance = old * state.variance + new * variance + old * new * np.square(mean - state.mean)
            mean = old * state.mean + new * mean
            concentration = old**2 * state.concentration + new**2 * concentration
        return replace(state, step=state.step + 1, mean=mean, variance=variance, concentration=concentration)

    def _matched(self, outputs: Outputs, state: MomentsState, info: ModelInfo) -> Prediction:
        slope, intercept = self._map(state, info)
        if slope is None or intercept is None:
            logits = outputs.logits
        else:
            matched = outputs.features[:, -1] * slope + intercept
            logits = (matched @ info.head_weight.T + info.head_bias).astype(np.float32, copy=False)
        return Prediction(logits, 1, diagnostics={"entropy": float(entropy(logits).mean())})

    def _map(self, state: MomentsState, info: ModelInfo) -> tuple[FloatArray | None, FloatArray | None]:
        """The map `f → slope f + intercept`, float32 `[F]` each, or None where nothing has been seen yet."""
        if state.mean is None:
            return None, None
        source = info.require_source(self.name)
        scale = np.sqrt(self._ratio(state, source.std[-1].astype(np.float64)))
        slope = 1 + self.gain * (scale - 1)
        intercept = self.gain * (source.mean[-1] - scale * state.mean)
        return slope.astype(np.float32), intercept.astype(np.float32)

    def _ratio(self, state: MomentsState, source_std: FloatArray) -> FloatArray:
        """The clamped ratio of variances, source to running, float64 `[F]`."""
        free = 1 - state.concentration  # as (n − 1)/n for n images alike: what makes the variance unbiased
        if state.variance is None or free <= 0:
            return np.ones_like(source_std)
        floor = np.finfo(np.float64).tiny  # where ε is 0
        ratio = np.square(source_std) / np.maximum(state.variance / free + self.variance_floor, floor)
        return cast(FloatArray, np.clip(ratio, 1 / self.ratio_limit, self.ratio_limit))
