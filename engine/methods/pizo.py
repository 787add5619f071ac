"""PIZO: per-image zeroth-order adaptation; every image of a batch has a perturbation of its own.

The loss is a known function of the network's outputs for each image, so its derivative with respect to them
needs no estimate; only the network's own Jacobian does. Two forwards then give one independent estimate of
the gradient per image, where a perturbation shared by the batch gives a single one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from ..interface.method import Binding, Prediction, Step
from ..interface.method_options import option, validate
from ..interface.request import Request, Requests
from ..model import (
    NORMS,
    PROMPTS,
    FloatArray,
    ImageArray,
    ModelInfo,
    Outputs,
    Tunables,
)
from ..search.gradient_steps import compute_rms
from ..search.philox import GENERATOR_HELP, Generator, draw_philox_normal, draw_philox_signs
from ..search.spsa import draw_signs
from ..search.tuned_norms import TunedNorms
from ..statistics.feature_statistics import Moments
from ..statistics.objective import (
    compute_discrepancy_slopes,
    compute_diversity_slopes,
    entropy,
)
from ..statistics.source_alignment import ShiftTarget, SourceAlignment
from ..statistics.window import compute_window_moments, slide_window
from .momentum_descent import MomentumState, apply_update, create_state


@dataclass(frozen=True)
class PizoState(MomentumState):
    """Tuned values and their gradients."""


@dataclass(frozen=True)
class Pizo:
    """PIZO, fozo's own method.

    Batches of any size: statistics are those of the last `window` images, or of the batch if that is larger,
    and an update is made whenever at least `update_images` images have contributed to its gradient.
    """

    name: ClassVar[str] = "pizo"

    tune: Literal["norms", "prompts", "both"] = option("norms", "tunables that are adapted")
    prompts: int = option(3, "number of prompt tokens, where they are tuned", low=1)
    first_block: int = option(1, "first block whose norms are tuned, from 0", low=0)
    frozen_last_blocks: int = option(
        3, "number of last blocks whose norms stay frozen; fewer if none would be left to adapt", low=0
    )
    directions: Literal["rademacher", "gaussian"] = option(
        "rademacher", "perturbations of the norms: random signs, or normal; those of prompts are normal"
    )
    generator: Generator = option("numpy", GENERATOR_HELP)
    epsilon: float = option(0.03, "ε of the norms", low=0)
    prompt_epsilon: float = option(0.5, "ε of the prompts", low=0)
    rate: float = option(0.01, "η of the norms: the root mean square of the longest step", low=0)
    prompt_rate: float = option(0.3, "η of the prompts", low=0)
    momentum: float = option(0.9, "share of the old running gradient that is kept", low=0, high=0.999)
    anchor: float = option(0.02, "share by which each update draws the tuned values back to 0", low=0, high=1)
    discrepancy_weight: float = option(0.4, "λ, weight of the distance to the source statistics", low=0)
    diversity_weight: float = option(
        0.0,
        "weight of the entropy of the batch's mean prediction, which is raised; not for small batches",
        low=0,
    )
    shift: ShiftTarget = option("origin", "target of the activation shift")
    entropy_on: Literal["shifted", "unshifted"] = option("shifted", "logits whose entropy enters the loss")
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
    samples: int = option(1, "pairs of forwards, each with its own directions", low=1)
    learn_every: int = option(1, "learn from one batch in this many; the others take a single forward", low=1)

    def __post_init__(self) -> None:
        validate(self)

    @property
    def forwards(self) -> int:
        """Forwards that one step uses, where it learns."""
        return 2 * self.samples

    def bind(self, model: ModelInfo) -> BoundPizo:
        """Return the method bound to a model.

        Raises:
            BundleError: the bundle lacks source statistics or a tunable, or its images depend on each other
                (batch statistics), so that none can have its own perturbation.
        """
        source = model.require_source(self.name)
        model.require_separate_images(self.name)
        rates: dict[str, Rates] = {}
        rows = slice(0, 0)
        if self.tune != "norms":
            model.require_tunable(PROMPTS, self.name)
            rates[PROMPTS] = Rates(self.prompt_epsilon, self.prompt_rate)
        if self.tune != "prompts":
            model.require_tunable(NORMS, self.name)
            rates[NORMS] = Rates(self.epsilon, self.rate)
            rows = TunedNorms.select(model, self.first_block, self.frozen_last_blocks, self.name).rows
        alignment = SourceAlignment(model, source, self.tolerance, self.shift)
        return BoundPizo(self, model, alignment, rows, rates)


class Rates(NamedTuple):
    """Size ε of a tunable's perturbations, and length η of the longest step."""

    epsilon: float
    rate: float


@dataclass(frozen=True, eq=False)
class BoundPizo(Binding[Pizo]):
    """PIZO on one model.

    Attributes:
        alignment: with the source statistics.
        rows: of the tuned norms, which follow each other, among the tunable ones.
        rates: of each tunable that is tuned; its name is also that of its field in the state.
    """

    alignment: SourceAlignment
    rows: slice
    rates: Mapping[str, Rates]

    def init(self, seed: int) -> PizoState:
        """Return prompts drawn uniformly within the model's bound, and unchanged norms."""
        prompts = self.options.prompts if PROMPTS in self.rates else 0
        norms = np.zeros((self.rows.stop - self.rows.start, 2, self.model.width))
        return create_state(PizoState, seed, self.model, prompts, norms)

    def step(self, state: PizoState, images: ImageArray) -> Step[PizoState]:
        """Request pairs of forwards around the current values, every image along a direction of its own."""
        options = self.options
        pairs: list[_Pair] = []
        if state.step % options.learn_every:
            (outputs,) = yield Request(images, [self._build_tunables(state, {}, 0)])
            features, logits = outputs.features, outputs.logits
        else:
            pairs = yield from self._request_pairs(state, images)
            features = _average([pair.features for pair in pairs])
            logits = _average([pair.logits for pair in pairs])
        moments = Moments.of(features).merge(
            compute_window_moments(state.window, len(images), options.window)
        )
        distance, strength = self.alignment.measure(moments)
        offset = self.alignment.compute_offset(moments, strength)
        window = slide_window(state.window, features, options.window)
        next_state = replace(state, step=state.step + 1, window=window)
        if pairs:
            next_state = self._accumulate_gradients(next_state, pairs, features, moments, offset)
        if next_state.images >= options.update_images:
            lengths = {name: rate * strength for name, (_, rate) in self.rates.items()}
            next_state = apply_update(next_state, lengths, options.momentum, options.anchor)
        logits = logits + offset
        diagnostics = {
            "entropy": float(entropy(logits).mean()),
            "discrepancy": distance,
            "need": strength,
            "size": compute_rms(next_state.prompts if options.tune == "prompts" else next_state.norms),
        }
        return Prediction(logits, max(1, 2 * len(pairs)), diagnostics=diagnostics), next_state

    def predict(self, state: PizoState, images: ImageArray) -> Requests[Prediction]:
        """Predict with the current values, unperturbed, and the current shift."""
        moments = compute_window_moments(state.window, 0, self.options.window)
        (outputs,) = yield Request(images, [self._build_tunables(state, {}, 0)])
        logits = self.alignment.shift_logits(outputs.logits, moments)
        return Prediction(logits, 1, diagnostics={"entropy": float(entropy(logits).mean())})

    def _request_pairs(self, state: PizoState, images: ImageArray) -> Requests[list[_Pair]]:
        """Request pairs of forwards around the current values."""
        pairs = []
        for sample in range(self.options.samples):
            directions = self._draw_directions(state, sample, len(images))
            tunables = [self._build_tunables(state, directions, sign) for sign in (1, -1)]
            plus, minus = yield Request(images, tunables)
            pairs.append(_Pair(directions, plus, minus))
        return pairs

    def _draw_directions(self, state: PizoState, sample: int, count: int) -> dict[str, FloatArray]:
        """Draw a direction for each image and each tunable, float32 `[N, …]`."""
        directions: dict[str, FloatArray] = {}
        if self.options.generator == "philox":
            if PROMPTS in self.rates:
                shape = (count, *state.prompts.shape)
                directions[PROMPTS] = draw_philox_normal(state.seed, state.step, 2 * sample, shape)
            if NORMS in self.rates:
                gaussian = self.options.directions == "gaussian"
                draw = draw_philox_normal if gaussian else draw_philox_signs
                shape = (count, *state.norms.shape)
                directions[NORMS] = draw(state.seed, state.step, 2 * sample + 1, shape)
            return directions
        generator = np.random.default_rng([state.seed, state.step + 1, sample])
        if PROMPTS in self.rates:
            directions[PROMPTS] = generator.standard_normal((count, *state.prompts.shape), np.float32)
        if NORMS in self.rates:
            shape = (count, *state.norms.shape)
            if self.options.directions == "gaussian":
                directions[NORMS] = generator.standard_normal(shape, np.float32)
            else:
                directions[NORMS] = draw_signs(generator, shape)
        return directions

    def _build_tunables(self, state: PizoState, directions: Mapping[str, FloatArray], sign: int) -> Tunables:
        """Return tunables at `values + sign · ε · directions`; without directions, shared by all images."""
        tunables: dict[str, FloatArray] = {}
        for name, (epsilon, _) in self.rates.items():
            values, direction = getattr(state, name), directions.get(name)
            shape = (len(self.model.norms), 2, self.model.width) if name == NORMS else values.shape
            tunable = np.zeros((1 if direction is None else len(direction), *shape), np.float32)
            tuned = tunable[:, self.rows] if name == NORMS else tunable
            if direction is not None:  # in place: at the size of a batch, copies take longer than products
                np.multiply(direction, np.float32(sign * epsilon), out=tuned)
            tuned += values
            tunables[name] = tunable
        return tunables

    def _compute_slopes(
        self, pair: _Pair, features: FloatArray, moments: Moments, offset: FloatArray
    ) -> FloatArray:
        """Return the difference of the loss along each image's own direction, float64 `[N]`."""
        options, plus, minus = self.options, pair.plus, pair.minus
        distance = compute_discrepancy_slopes(
            features, plus.features, minus.features, moments, self.alignment.source
        )
        shift = offset if options.entropy_on == "shifted" else np.float32(0)
        plus_logits, minus_logits = plus.logits + shift, minus.logits + shift
        slopes = options.discrepancy_weight * distance + entropy(plus_logits) - entropy(minus_logits)
        if options.diversity_weight:
            slopes -= options.diversity_weight * compute_diversity_slopes(plus_logits, minus_logits)
        return slopes

    def _accumulate_gradients(
        self,
        state: PizoState,
        pairs: list[_Pair],
        features: FloatArray,
        moments: Moments,
        offset: FloatArray,
    ) -> PizoState:
        """Add each image's own slope along its own direction to the sums."""
        sums: dict[str, Any] = {}
        for pair in pairs:
            slopes = self._compute_slopes(pair, features, moments, offset)
            for name, direction in pair.directions.items():
                if epsilon := self.rates[name].epsilon:
                    field = f"{name}_gradient"
                    gradient = np.einsum("n,n...->...", slopes / (2 * epsilon), direction)
                    sums[field] = sums.get(field, getattr(state, field)) + gradient
        return replace(state, images=state.images + len(features), **sums)


@dataclass(frozen=True, eq=False)
class _Pair:
    """Two forwards at both ends of each image's direction.

    Attributes:
        directions: by tunable, `[N, …]`.
        plus, minus: outputs at the two ends.
    """

    directions: Mapping[str, FloatArray]
    plus: Outputs
    minus: Outputs

    @property
    def features(self) -> FloatArray:
        """Mean features of the two ends, `[N, L, F]`."""
        return (self.plus.features + self.minus.features) / 2

    @property
    def logits(self) -> FloatArray:
        """Mean logits of the two ends, `[N, K]`."""
        return (self.plus.logits + self.minus.logits) / 2


def _average(arrays: list[FloatArray]) -> FloatArray:
    return arrays[0] if len(arrays) == 1 else np.mean(arrays, axis=0)
