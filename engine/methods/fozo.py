"""FOZO: zeroth-order tuning of prompt tokens from pairs of forwards (CVPR 2026, arXiv 2603.04733).

The defaults are the behaviour of the official code, because only that can be compared with
the published figures. Where paper and code differ, or the code is best not followed, there is an option.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from ..errors import InputError
from ..interface.method import Prediction, State, growing_array, late_array
from ..interface.options import option, validate
from ..model import FloatArray, Forward, ImageArray, ModelInfo, SourceStatistics
from ..search import spsa
from ..search.schedule import Constants, Schedule, advance
from ..statistics.activation_shift import logit_offset, moving_average, shift_vector
from ..statistics.moments import Moments
from ..statistics.objective import DiscrepancyNorm, LossScale, alignment_loss, discrepancy, entropy
from ..statistics.window import empty_window, slide, window_moments


@dataclass(frozen=True)
class FozoState(State):
    """What FOZO carries.

    Attributes:
        prompts: float32 `[P, D]`.
        epsilon: size of the next perturbation.
        rate: learning rate of the last update.
        window: features of the last images, float32 `[W, L, F]`, W at most the option `window`.
        loss_average: moving average of the loss, or None before the first batch.
        center: running statistic of the last feature, float64 `[F]`, or None before the first batch.
    """

    prompts: FloatArray
    epsilon: float
    rate: float
    window: FloatArray = growing_array()
    loss_average: float | None = None
    center: FloatArray | None = late_array("feature_width")


@dataclass(frozen=True)
class _Candidate:
    """One forward: logits `[N, K]`, features `[N, L, F]` where a window needs them, and their moments."""

    logits: FloatArray
    features: FloatArray | None
    moments: Moments


@dataclass(frozen=True)
class Fozo:
    """FOZO as released; every deviation of the paper from its code is an option.

    Small and ragged batches: the released loss is a sum over images, so a smaller batch takes a smaller step
    and looks cheaper to the spike rule; `loss_scale=per_image` removes both effects. With `window`, the
    statistics are those of the last so many images and no longer of the batch alone. Without it, a batch of
    one image has no standard deviation, so only its mean enters the discrepancy.
    """

    name: ClassVar[str] = "fozo"

    prompts: int = option(3, "number of prompt tokens", low=0)
    samples: int = option(1, "SPSA samples per batch, each of two forwards", low=1)
    discrepancy_weight: float = option(0.4, "λ, weight of the distance to the source statistics", low=0)
    shift: Literal["official_sum", "source_mean", "origin", "none"] = option(
        "official_sum",
        "activation shift: source mean minus the running sum of both batch means (official code),"
        " minus their average (paper), towards the origin, or none",
    )
    shift_gain: float = option(1.0, "how far the features are moved", low=0)
    shift_update: Literal["lagged", "inclusive"] = option(
        "lagged", "whether the running statistic includes the batch that is predicted"
    )
    shift_decay: float = option(0.9, "share of the old running statistic that is kept", low=0, high=1)
    entropy_on: Literal["shifted", "unshifted"] = option("shifted", "logits whose entropy enters the loss")
    loss_norm: DiscrepancyNorm = option(
        "squared", "distance to the source statistics; l2_groups is the paper's"
    )
    window: int = option(
        0, "images in the statistics: earlier ones join those of a smaller batch; 0 is the batch alone", low=0
    )
    loss_scale: LossScale = option(
        "sum", "sum over the batch as released, or per image, scaled to a batch of 64"
    )
    output: Literal["best", "mean", "clean"] = option(
        "best",
        "prediction: the candidate of smallest loss, the mean of all candidates, or the unperturbed"
        " prompts (one more forward)",
    )
    update_rate: Literal["adjusted", "previous"] = option(
        "adjusted",
        "learning rate of the update: after this batch's loss has adjusted it (official code), or before",
    )
    schedule_loss: Literal["best", "mean"] = option(
        "best", "loss that drives the schedule, over the candidates"
    )
    epsilon: float = option(0.5, "ε at the start, after a spike, and at most", low=0)
    epsilon_min: float = option(0.2, "ε at least", low=0)
    epsilon_decay: float = option(0.9, "factor on ε after each batch", low=0, high=1)
    rate: float = option(0.08, "η at the start, before the first adjustment", low=0)
    rate_min: float = option(0.1, "η at least, and after a spike", low=0)
    rate_max: float = option(3.0, "η at most", low=0)
    rate_increase: float = option(0.1, "added to η after each batch without a spike", low=0)
    rate_decay: float = option(0.7, "factor on η after each batch", low=0, high=1)
    loss_decay: float = option(0.9, "share of the old loss average that is kept", low=0, high=1)
    spike_ratio: float = option(1.05, "a loss above this multiple of its average is a spike", low=0)

    def __post_init__(self) -> None:
        validate(self)
        for low, high in (("epsilon_min", "epsilon"), ("rate_min", "rate_max")):
            if getattr(self, low) > getattr(self, high):
                raise InputError(
                    f"fozo: {low} = {getattr(self, low)} is above {high} = {getattr(self, high)}"
                )

    @property
    def forwards(self) -> int:
        """Forwards that one step uses."""
        return 2 * self.samples + (self.output == "clean")

    def init(self, info: ModelInfo, seed: int) -> FozoState:
        """Prompts drawn uniformly within the model's bound, schedule at its start, nothing seen yet.

        Raises:
            BundleError: the bundle has no source statistics for this graph.
        """
        info.require_source("fozo")
        info.require_tunable("prompts", "fozo")
        prompts = spsa.uniform(seed, info.prompt_bound, (self.prompts, info.width))
        return FozoState(
            step=0,
            seed=seed,
            prompts=prompts,
            epsilon=float(self.epsilon),
            rate=float(self.rate),
            window=empty_window(info),
        )

    def step(self, state: FozoState, images: ImageArray, network: Forward) -> tuple[Prediction, FozoState]:
        """One batch in the order of the official code (docs/methods.md)."""
        info, source = network.info, network.info.require_source("fozo")
        directions = [
            spsa.gaussian_direction(state.seed, state.step, j, state.prompts.shape)
            for j in range(self.samples)
        ]
        candidates = [
            candidate
            for direction in directions
            for candidate in self._pair(state, direction, images, network)
        ]

        center = self._updated_center(state.center, candidates)
        used = center if self.shift_update == "inclusive" else state.center
        offset = logit_offset(info.head_weight, self._shift(used, source))
        past = window_moments(state.window, len(images), self.window)
        distances = [discrepancy(each.moments.merge(past), source, self.loss_norm) for each in candidates]
        losses = [self._loss(*pair, offset) for pair in zip(candidates, distances, strict=True)]
        best = int(np.argmin(losses))
        slopes = [
            spsa.directional_slope(plus, minus, state.epsilon)
            for plus, minus in zip(losses[::2], losses[1::2], strict=True)
        ]
        driving = losses[best] if self.schedule_loss == "best" else float(np.mean(losses))
        schedule = advance(
            Schedule(state.epsilon, state.rate, state.loss_average), driving, self._constants()
        )
        rate = schedule.rate if self.update_rate == "adjusted" else state.rate
        logits = self._output(candidates, best, state, images, network) + offset
        diagnostics = {
            "epsilon": state.epsilon,
            "rate": rate,
            "spike": float(schedule.spike),
            "entropy": float(entropy(logits).mean()),
            "discrepancy": distances[best],
            "slope": float(np.mean(slopes)),
        }
        return Prediction(logits, self.forwards, driving, diagnostics), FozoState(
            step=state.step + 1,
            seed=state.seed,
            prompts=spsa.descend(state.prompts, directions, slopes, rate),
            epsilon=schedule.epsilon,
            rate=schedule.rate,
            window=self._slid(state.window, candidates),
            loss_average=schedule.loss_average,
            center=center,
        )

    def predict(self, state: FozoState, images: ImageArray, network: Forward) -> Prediction:
        """Predicts with the unperturbed prompts and the shift as it is."""
        info = network.info
        shift = self._shift(state.center, info.require_source("fozo"))
        logits = network(images, prompts=state.prompts[None]).logits + logit_offset(info.head_weight, shift)
        return Prediction(logits, 1, diagnostics={"entropy": float(entropy(logits).mean())})

    def _pair(
        self, state: FozoState, direction: FloatArray, images: ImageArray, network: Forward
    ) -> list[_Candidate]:
        """The forwards at `prompts ± ε direction`; only what the loss needs of them is kept."""
        move = np.float32(state.epsilon) * direction
        pair = [{"prompts": (state.prompts + sign * move)[None]} for sign in (np.float32(1), np.float32(-1))]
        outputs = network.candidates(images, pair)
        return [
            _Candidate(o.logits, o.features if self.window else None, Moments.of(o.features)) for o in outputs
        ]

    def _updated_center(self, center: FloatArray | None, candidates: list[_Candidate]) -> FloatArray:
        mean = np.mean([candidate.moments.mean[-1] for candidate in candidates], axis=0)
        # The official code adds the means of the two halves where their average was meant.
        return moving_average(center, 2 * mean if self.shift == "official_sum" else mean, self.shift_decay)

    def _slid(self, window: FloatArray, candidates: list[_Candidate]) -> FloatArray:
        """The window after this batch, whose features are averaged over the candidates."""
        if not self.window:
            return window
        features = [candidate.features for candidate in candidates if candidate.features is not None]
        return slide(window, np.mean(features, axis=0), self.window)

    def _shift(self, center: FloatArray | None, source: SourceStatistics) -> FloatArray | None:
        if self.shift == "none":
            return None
        return shift_vector(None if self.shift == "origin" else source.mean[-1], center, self.shift_gain)

    def _loss(self, candidate: _Candidate, distance: float, offset: FloatArray) -> float:
        logits = candidate.logits + offset if self.entropy_on == "shifted" else candidate.logits
        return alignment_loss(distance, entropy(logits), self.discrepancy_weight, self.loss_scale)

    def _output(
        self, candidates: list[_Candidate], best: int, state: FozoState, images: ImageArray, network: Forward
    ) -> FloatArray:
        """The logits to predict with, not yet shifted."""
        if self.output == "best":
            return candidates[best].logits
        if self.output == "mean":
            mean: FloatArray = np.mean([candidate.logits for candidate in candidates], axis=0)
            return mean
        return network(images, prompts=state.prompts[None]).logits

    def _constants(self) -> Constants:
        return Constants(
            self.epsilon,
            self.epsilon_min,
            self.epsilon_decay,
            self.rate_min,
            self.rate_max,
            self.rate_increase,
            self.rate_decay,
            self.loss_decay,
            self.spike_ratio,
        )
