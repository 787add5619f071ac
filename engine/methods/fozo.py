"""FOZO: zeroth-order tuning of prompt tokens from pairs of forwards (CVPR 2026, arXiv 2603.04733).

The defaults are the behaviour of the official code, because only that can be compared with
the published figures. Where paper and code differ, or the code is best not followed, there is an option.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, cast

import numpy as np

from ..errors import InputError
from ..interface.method import Binding, Prediction, State, Step, optional_array, variable_length_array
from ..interface.method_options import option, validate
from ..interface.request import Request, Requests
from ..model import PROMPTS, FloatArray, ImageArray, ModelInfo, SourceStatistics
from ..search import spsa
from ..search.philox import GENERATOR_HELP, Generator, draw_philox_normal
from ..search.schedule import Constants, Schedule, advance
from ..statistics.activation_shift import compute_shift_offset, update_average
from ..statistics.feature_statistics import Moments
from ..statistics.objective import (
    DiscrepancyNorm,
    LossScale,
    compute_alignment_loss,
    compute_discrepancy,
    entropy,
)
from ..statistics.window import compute_window_moments, create_empty_window, slide_window


@dataclass(frozen=True)
class FozoState(State):
    """Prompts, schedule and running statistics.

    Attributes:
        prompts: float32 `[P, D]`.
        schedule: size of the next perturbation, learning rate, and moving average of the loss.
        window: features of the last images, float32 `[W, L, F]`, W at most the option `window`.
        center: running statistic of the last feature, float64 `[F]`, or None before the first batch.
    """

    prompts: FloatArray
    schedule: Schedule
    window: FloatArray = variable_length_array()
    center: FloatArray | None = optional_array("feature_width")


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
    generator: Generator = option("numpy", GENERATOR_HELP)
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

    def bind(self, model: ModelInfo) -> BoundFozo:
        """Return the method bound to a model.

        Raises:
            BundleError: the bundle has no source statistics for this graph, or no prompts to tune.
        """
        source = model.require_source(self.name)
        model.require_tunable(PROMPTS, self.name)
        return BoundFozo(self, model, source)

    @property
    def constants(self) -> Constants:
        """The constants of the schedule."""
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


@dataclass(frozen=True, eq=False)
class BoundFozo(Binding[Fozo]):
    """FOZO on one model.

    Attributes:
        source: statistics of clean images.
    """

    source: SourceStatistics

    def init(self, seed: int) -> FozoState:
        """Return prompts drawn uniformly within the model's bound, and the schedule at its start."""
        shape = (self.options.prompts, self.model.width)
        return FozoState(
            step=0,
            seed=seed,
            prompts=spsa.draw_uniform(seed, self.model.prompt_bound, shape),
            schedule=Schedule(float(self.options.epsilon), float(self.options.rate)),
            window=create_empty_window(self.model),
        )

    def step(self, state: FozoState, images: ImageArray) -> Step[FozoState]:
        """Process one batch in the order of the official code (docs/specification.md §6.4)."""
        options = self.options
        directions = [self._draw_direction(state, sample) for sample in range(options.samples)]
        candidates: list[_Candidate] = []
        for direction in directions:
            candidates += yield from self._perturb_pair(state, direction, images)

        center = self._update_center(state.center, candidates)
        offset = self._compute_offset(center if options.shift_update == "inclusive" else state.center)
        earlier_moments = compute_window_moments(state.window, len(images), options.window)
        distances = [
            compute_discrepancy(c.moments.merge(earlier_moments), self.source, options.loss_norm)
            for c in candidates
        ]
        losses = [self._compute_loss(*pair, offset) for pair in zip(candidates, distances, strict=True)]
        best = int(np.argmin(losses))
        slopes = [
            spsa.compute_directional_slope(plus, minus, state.schedule.epsilon)
            for plus, minus in zip(losses[::2], losses[1::2], strict=True)
        ]
        loss = losses[best] if options.schedule_loss == "best" else float(np.mean(losses))
        schedule = advance(state.schedule, loss, options.constants)
        rate = schedule.rate if options.update_rate == "adjusted" else state.schedule.rate
        unshifted = yield from self._select_output(candidates, best, state, images)
        logits = unshifted + offset
        diagnostics = {
            "epsilon": state.schedule.epsilon,
            "rate": rate,
            "spike": float(schedule.spike),
            "entropy": float(entropy(logits).mean()),
            "discrepancy": distances[best],
            "slope": float(np.mean(slopes)),
        }
        return Prediction(logits, options.forwards, loss, diagnostics), FozoState(
            step=state.step + 1,
            seed=state.seed,
            prompts=spsa.descend(state.prompts, directions, slopes, rate),
            schedule=schedule,
            window=self._extend_window(state.window, candidates),
            center=center,
        )

    def predict(self, state: FozoState, images: ImageArray) -> Requests[Prediction]:
        """Predict with the unperturbed prompts and the current shift."""
        (outputs,) = yield Request(images, [{PROMPTS: state.prompts[None]}])
        logits = outputs.logits + self._compute_offset(state.center)
        return Prediction(logits, 1, diagnostics={"entropy": float(entropy(logits).mean())})

    def _draw_direction(self, state: FozoState, sample: int) -> FloatArray:
        """Draw a standard normal direction of the prompts, float32 `[P, D]`."""
        shape = state.prompts.shape
        if self.options.generator == "philox":
            (direction,) = draw_philox_normal(state.seed, state.step, sample, (1, *shape))
            return cast(FloatArray, direction)
        return spsa.draw_gaussian_direction(state.seed, state.step, sample, shape)

    def _perturb_pair(
        self, state: FozoState, direction: FloatArray, images: ImageArray
    ) -> Requests[list[_Candidate]]:
        """Request the forwards at `prompts ± ε direction`; keep only what the loss needs of them."""
        step = np.float32(state.schedule.epsilon) * direction
        pair = [{PROMPTS: (state.prompts + sign * step)[None]} for sign in (np.float32(1), np.float32(-1))]
        outputs = yield Request(images, pair)
        return [
            _Candidate(o.logits, o.features if self.options.window else None, Moments.of(o.features))
            for o in outputs
        ]

    def _update_center(self, center: FloatArray | None, candidates: list[_Candidate]) -> FloatArray:
        mean = np.mean([candidate.moments.mean[-1] for candidate in candidates], axis=0)
        # The official code adds the means of the two halves where their average was meant.
        value = 2 * mean if self.options.shift == "official_sum" else mean
        return update_average(center, value, self.options.shift_decay)

    def _extend_window(self, window: FloatArray, candidates: list[_Candidate]) -> FloatArray:
        """Return the window after this batch, whose features are averaged over the candidates."""
        if not self.options.window:
            return window
        features = [candidate.features for candidate in candidates if candidate.features is not None]
        return slide_window(window, np.mean(features, axis=0), self.options.window)

    def _compute_offset(self, center: FloatArray | None) -> FloatArray:
        options, head_weight = self.options, self.model.head_weight
        return compute_shift_offset(head_weight, self.source, center, options.shift, options.shift_gain)

    def _compute_loss(self, candidate: _Candidate, distance: float, offset: FloatArray) -> float:
        logits = candidate.logits + offset if self.options.entropy_on == "shifted" else candidate.logits
        return compute_alignment_loss(
            distance, entropy(logits), self.options.discrepancy_weight, self.options.loss_scale
        )

    def _select_output(
        self, candidates: list[_Candidate], best: int, state: FozoState, images: ImageArray
    ) -> Requests[FloatArray]:
        """Return the unshifted logits to predict with."""
        if self.options.output == "best":
            return candidates[best].logits
        if self.options.output == "mean":
            mean: FloatArray = np.mean([candidate.logits for candidate in candidates], axis=0)
            return mean
        (outputs,) = yield Request(images, [{PROMPTS: state.prompts[None]}])
        return outputs.logits
