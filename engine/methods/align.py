"""Alignment with exact gradients: PIZO's loss, descended along its gradient instead of an estimate of it.

Not forward-only: it needs a bundle with a pull-back graph (`fozo export --gradients`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from ..interface.method import Binding, Prediction, Step
from ..interface.method_options import option, validate
from ..interface.request import Request, Requests
from ..model import NORMS, PROMPTS, FloatArray, ImageArray, ModelInfo, Slopes, Tunables
from ..search.gradient_steps import compute_rms
from ..search.tuned_norms import TunedNorms
from ..statistics.feature_statistics import Moments
from ..statistics.objective import REFERENCE_BATCH, entropy
from ..statistics.output_slopes import derive_discrepancy, derive_entropy
from ..statistics.source_alignment import ShiftTarget, SourceAlignment
from ..statistics.window import compute_window_moments, slide_window
from .momentum_descent import MomentumState, apply_update, create_state


@dataclass(frozen=True)
class AlignState(MomentumState):
    """Tuned values and their gradients."""


@dataclass(frozen=True)
class Align:
    """Alignment with exact gradients: entropy and distance to the source statistics are descended.

    Loss, window, tolerance, shift and step rule are those of `pizo`.
    """

    name: ClassVar[str] = "align"

    tune: Literal["norms", "prompts", "both"] = option("norms", "tunables that are adapted")
    prompts: int = option(3, "number of prompt tokens, where they are tuned", low=1)
    first_block: int = option(1, "first block whose norms are tuned, from 0", low=0)
    frozen_last_blocks: int = option(
        3, "number of last blocks whose norms stay frozen; fewer if none would be left to adapt", low=0
    )
    rate: float = option(0.005, "η of the norms: the root mean square of the longest step", low=0)
    prompt_rate: float = option(0.03, "η of the prompts", low=0)
    momentum: float = option(0.9, "share of the old average gradient that is kept", low=0, high=0.999)
    anchor: float = option(
        0.02, "share by which tuned values are drawn back to 0 in each update", low=0, high=1
    )
    discrepancy_weight: float = option(1.0, "λ, weight of the distance to the source statistics", low=0)
    entropy_weight: float = option(1.0, "weight of the entropy", low=0)
    shift: ShiftTarget = option("origin", "target of the activation shift")
    tolerance: float = option(
        2.0,
        "distance to the source up to which nothing is adapted, as a multiple of that of clean images; full"
        " strength is reached at twice that; 0 always adapts at full strength",
        low=0,
    )
    window: int = option(
        64,
        "images in the statistics: earlier ones join those of a smaller batch; below 64 the shift is weaker",
        low=1,
    )
    update_images: int = option(64, "least number of images that contribute to an update", low=1)
    gradient_share: float = option(
        0.25, "share of the images whose gradients are computed, drawn at random; 1: all", low=0.01, high=1
    )
    learn_every: int = option(1, "learn from one batch in this many; the others take a single forward", low=1)

    def __post_init__(self) -> None:
        validate(self)

    @property
    def forwards(self) -> int:
        """Forwards that one step uses."""
        return 1

    @property
    def pull_backs(self) -> float:
        """Computations of exact gradients in a step that learns, as a share of the batch."""
        return self.gradient_share

    def bind(self, model: ModelInfo) -> BoundAlign:
        """Return the method bound to a model.

        Raises:
            BundleError: the bundle lacks source statistics, a tunable or the pull-back graph.
        """
        source = model.require_source(self.name)
        norms, rates = None, {}
        if self.tune != "norms":
            model.require_gradient(PROMPTS, self.name)
            rates[PROMPTS] = self.prompt_rate
        if self.tune != "prompts":
            model.require_gradient(NORMS, self.name)
            norms = TunedNorms.select(model, self.first_block, self.frozen_last_blocks, self.name)
            rates[NORMS] = self.rate
        alignment = SourceAlignment(model, source, self.tolerance, self.shift)
        return BoundAlign(self, model, alignment, norms, rates)


@dataclass(frozen=True, eq=False)
class BoundAlign(Binding[Align]):
    """Alignment on one model.

    Attributes:
        alignment: with the source statistics.
        norms: that are tuned; None if none are.
        rates: η of each tunable that is tuned; its name is also that of its field in the state.
    """

    alignment: SourceAlignment
    norms: TunedNorms | None
    rates: Mapping[str, float]

    def init(self, seed: int) -> AlignState:
        """Return prompts drawn uniformly within the model's bound, and unchanged norms."""
        prompts = self.options.prompts if PROMPTS in self.rates else 0
        norms = np.zeros((0, 2, self.model.width)) if self.norms is None else self.norms.create_zeros()
        return create_state(AlignState, seed, self.model, prompts, norms)

    def step(self, state: AlignState, images: ImageArray) -> Step[AlignState]:
        """Predict with the current values, and follow the gradient of the loss at these predictions."""
        options, tunables = self.options, self._build_tunables(state)
        (outputs,) = yield Request(images, [tunables])
        past = compute_window_moments(state.window, len(images), options.window)
        moments = Moments.of(outputs.features).merge(past)
        distance, strength = self.alignment.measure(moments)
        logits = outputs.logits + self.alignment.compute_offset(moments, strength)
        window = slide_window(state.window, outputs.features, options.window)
        next_state = replace(state, step=state.step + 1, window=window)
        if state.step % options.learn_every == 0:
            chosen = self._choose_images(state, len(images))
            next_state = replace(next_state, images=state.images + len(images))
        else:
            chosen = np.arange(0)
        if chosen.size:
            features = outputs.features[chosen]
            slopes = Slopes(
                options.entropy_weight * derive_entropy(logits[chosen]),
                options.discrepancy_weight
                / REFERENCE_BATCH
                * derive_discrepancy(features, moments, self.alignment.source),
            )
            (pulled,) = yield Request(images[chosen], [tunables], slopes)
            assert pulled.gradients is not None
            next_state = self._add_gradients(next_state, pulled.gradients)
        if next_state.images >= options.update_images:
            lengths = {name: rate * strength for name, rate in self.rates.items()}
            next_state = apply_update(next_state, lengths, options.momentum, options.anchor)
        diagnostics = {
            "entropy": float(entropy(logits).mean()),
            "discrepancy": distance,
            "need": strength,
            "size": compute_rms(next_state.prompts if options.tune == "prompts" else next_state.norms),
        }
        return Prediction(
            logits, 1, diagnostics=diagnostics, pull_backs=len(chosen) / len(images)
        ), next_state

    def predict(self, state: AlignState, images: ImageArray) -> Requests[Prediction]:
        """Predict with the current values and the current shift."""
        moments = compute_window_moments(state.window, 0, self.options.window)
        (outputs,) = yield Request(images, [self._build_tunables(state)])
        logits = self.alignment.shift_logits(outputs.logits, moments)
        return Prediction(logits, 1, diagnostics={"entropy": float(entropy(logits).mean())})

    def _choose_images(self, state: AlignState, images: int) -> NDArray[np.int64]:
        """Draw the indices of the images of a batch whose gradients are computed, in ascending order.

        They are the share of all images since the last update, rounded up, so each update has at least one.
        """
        share = self.options.gradient_share
        before, after = (_round_up(share * count) for count in (state.images, state.images + images))
        if after - before == images:
            return np.arange(images)
        generator = np.random.default_rng([state.seed, state.step + 1, 0])
        return np.sort(generator.choice(images, after - before, replace=False))

    def _build_tunables(self, state: AlignState) -> Tunables:
        """Return what to feed for the tuned values."""
        tunables = {} if self.norms is None else dict(self.norms.build_tunables(state.norms))
        return {**tunables, PROMPTS: state.prompts[None]} if PROMPTS in self.rates else tunables

    def _add_gradients(self, state: AlignState, gradients: Mapping[str, FloatArray]) -> AlignState:
        """Add the gradients of some images to the sums."""
        changes: dict[str, Any] = {}
        if PROMPTS in self.rates:
            changes["prompts_gradient"] = state.prompts_gradient + gradients[PROMPTS]
        if self.norms is not None:
            changes["norms_gradient"] = state.norms_gradient + gradients[NORMS][self.norms.rows]
        return replace(state, **changes)


def _round_up(count: float) -> int:
    """Return the next integer, past errors of rounding."""
    return math.ceil(count - 1e-9)
