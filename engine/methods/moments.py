"""Moment matching: bring mean and variance of the head's input to those of clean images.

This is the global branch of QuAR (arXiv 2610.08358). The method `quar` has the local branches, too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, cast

import numpy as np

from ..interface.method import Binding, Prediction, State, Step, optional_array
from ..interface.method_options import option, validate
from ..interface.request import Request, Requests
from ..model import FloatArray, ImageArray, ModelInfo, Outputs, SourceStatistics
from ..statistics.objective import entropy


@dataclass(frozen=True)
class MomentsState(State):
    """Running moments of the last feature, in which later images weigh more.

    Attributes:
        mean: float64 `[F]`, or None before the first batch.
        variance: biased (weighted by the same weights), float64 `[F]`, or None before the first batch.
        concentration: sum of the squared weights of all images seen: 1 for one image, 1/n for n alike.
    """

    mean: FloatArray | None = optional_array("feature_width")
    variance: FloatArray | None = optional_array("feature_width")
    concentration: float = 1.0


@dataclass(frozen=True)
class MomentMatching:
    """Affine moment matching of the last feature f, per channel: `µ_S + √r · (f − µ)`, `r = σ_S² / (σ² + ε)`.

    Notes on the paper give the clamp of r to at most 3, ε, the rate 0.1 of the running moments, and the full
    strength 1 of the global branch. Where they are silent, the choice is ours: r is clamped on both sides,
    the running variance is that of all images under the weights of the running mean, between batches too, and
    it is unbiased as σ_S² is. So batches may have any size. After a single image there is no variance yet,
    and its mean is that image, so the network's own prediction stands.
    """

    name: ClassVar[str] = "moments"

    update: Literal["inclusive", "lagged"] = option(
        "inclusive", "whether the running moments include the batch that is predicted"
    )
    decay: float = option(0.9, "share of the old running moments that is kept", low=0, high=1)
    gain: float = option(1.0, "λ, how far the features are moved; 1 is all the way", low=0)
    ratio_limit: float = option(
        3.0,
        "r, limit of the ratio of variances, which is clamped to [1/r, r]; 1 matches the mean alone",
        low=1,
    )
    variance_floor: float = option(1e-6, "ε, added to the running variance", low=0)

    def __post_init__(self) -> None:
        validate(self)

    @property
    def forwards(self) -> int:
        """Forwards that one step uses."""
        return 1

    def bind(self, model: ModelInfo) -> BoundMomentMatching:
        """Return the method bound to a model.

        Raises:
            BundleError: the bundle has no source statistics for this graph.
        """
        return BoundMomentMatching(self, model, model.require_source(self.name))


@dataclass(frozen=True, eq=False)
class BoundMomentMatching(Binding[MomentMatching]):
    """Moment matching on one model.

    Attributes:
        source: statistics of clean images.
    """

    source: SourceStatistics

    def init(self, seed: int) -> MomentsState:
        """Return a state without running moments."""
        return MomentsState(step=0, seed=seed)

    def step(self, state: MomentsState, images: ImageArray) -> Step[MomentsState]:
        """Predict with matched features, and add the unmatched ones to the running moments."""
        (outputs,) = yield Request(images)
        next_state = self._update_moments(state, outputs.features[:, -1])
        return self._predict(outputs, next_state if self.options.update == "inclusive" else state), next_state

    def predict(self, state: MomentsState, images: ImageArray) -> Requests[Prediction]:
        """Predict with features matched by the current running moments."""
        (outputs,) = yield Request(images)
        return self._predict(outputs, state)

    def _update_moments(self, state: MomentsState, features: FloatArray) -> MomentsState:
        """Return the moments of a mixture: `decay` parts of the old ones, the remainder of this batch."""
        features = features.astype(np.float64)
        mean, variance = features.mean(axis=0), features.var(axis=0)
        concentration = 1 / len(features)
        if state.mean is not None and state.variance is not None:
            old_weight, new_weight = self.options.decay, 1 - self.options.decay
            variance = (
                old_weight * state.variance
                + new_weight * variance
                + old_weight * new_weight * np.square(mean - state.mean)
            )
            mean = old_weight * state.mean + new_weight * mean
            concentration = old_weight**2 * state.concentration + new_weight**2 * concentration
        return replace(state, step=state.step + 1, mean=mean, variance=variance, concentration=concentration)

    def _predict(self, outputs: Outputs, state: MomentsState) -> Prediction:
        logits, features = outputs.logits, outputs.features[:, -1]
        if state.mean is not None and state.concentration < 1:
            slope, intercept = self._compute_map(state, state.mean)
            matched = features * slope + intercept
            logits = (matched @ self.model.head_weight.T + self.model.head_bias).astype(
                np.float32, copy=False
            )
        return Prediction(logits, 1, diagnostics={"entropy": float(entropy(logits).mean())})

    def _compute_map(self, state: MomentsState, mean: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return slope and intercept of the map of the features, float32 `[F]` each."""
        gain, source_mean = self.options.gain, self.source.mean[-1]
        scale = np.sqrt(self._compute_ratio(state, self.source.std[-1].astype(np.float64)))
        slope = 1 + gain * (scale - 1)
        intercept = gain * (source_mean - scale * mean)
        return slope.astype(np.float32), intercept.astype(np.float32)

    def _compute_ratio(self, state: MomentsState, source_std: FloatArray) -> FloatArray:
        """Return the clamped ratio of variances, source to running, float64 `[F]`."""
        freedom = 1 - state.concentration  # (n − 1)/n for n equal weights: makes the variance unbiased
        if state.variance is None or freedom <= 0:
            return np.ones_like(source_std)
        floor = np.finfo(np.float64).tiny  # where ε is 0
        variance = state.variance / freedom + self.options.variance_floor
        ratio = np.square(source_std) / np.maximum(variance, floor)
        limit = self.options.ratio_limit
        return cast(FloatArray, np.clip(ratio, 1 / limit, limit))
