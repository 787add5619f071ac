"""PIZO: per-image zeroth-order adaptation; every image of a batch has a perturbation of its own.

The loss is a known function of what the network says about each image, so its derivative with respect to
that needs no estimate; only the network's own Jacobian does. Two forwards then give one independent estimate
of the gradient per image, where a perturbation shared by the batch gives one in all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np

from ..errors import BundleError
from ..interface.method import Prediction, State, growing_array
from ..interface.options import option, validate
from ..model import FloatArray, Forward, ImageArray, ModelInfo, Outputs, Tunables
from ..search.adapted_norms import adapted_norms
from ..search.spsa import uniform
from ..statistics.activation_shift import logit_offset, shift_vector
from ..statistics.moments import Moments
from ..statistics.objective import (
    REFERENCE_BATCH,
    chance_discrepancy,
    discrepancy,
    diversity_slopes,
    entropy,
    outer_slopes,
)
from ..statistics.window import empty_window, slide, window_moments

TINY = 1e-12  # a gradient below this is none at all


@dataclass(frozen=True)
class PizoState(State):
    """What PIZO carries; of prompts and norms the one that is not tuned is empty.

    Attributes:
        prompts: float32 `[P, D]`.
        norms: float32 `[M, 2, D]`, addends to gain and bias of each tuned norm.
        prompts_momentum, norms_momentum: running averages of the gradients, float64, of these shapes.
        prompts_gradient, norms_gradient: sums over the images since the last update, float64.
        window: features of the last images, float32 `[W, L, F]`, W at most the option `window`.
        images: that the sums are over.
        updates: made so far.
    """

    prompts: FloatArray
    norms: FloatArray
    prompts_momentum: FloatArray
    norms_momentum: FloatArray
    prompts_gradient: FloatArray
    norms_gradient: FloatArray
    window: FloatArray = growing_array()
    images: int = 0
    updates: int = 0


@dataclass(frozen=True)
class Pizo:
    """PIZO, fozo's own method.

    Batches of any size: statistics are those of the last `window` images, or of the batch if that is larger,
    and an update is made whenever at least `update_images` images have contributed to its gradient.
    """

    name: ClassVar[str] = "pizo"

    tune: Literal["norms", "prompts", "both"] = option("norms", "what is adapted")
    prompts: int = option(3, "number of prompt tokens, where they are tuned", low=1)
    first_block: int = option(1, "first block whose norms are tuned, from 0", low=0)
    frozen_last_blocks: int = option(
        3, "blocks at the end whose norms are not tuned; fewer, if else there were none", low=0
    )
    directions: Literal["rademacher", "gaussian"] = option(
        "rademacher", "perturbations of the norms: ±1 at random, or normal; prompts' are always normal"
    )
    epsilon: float = option(0.03, "ε of the norms", low=0)
    prompt_epsilon: float = option(0.5, "ε of the prompts", low=0)
    rate: float = option(0.01, "η of the norms: the root mean square of the longest step", low=0)
    prompt_rate: float = option(0.3, "η of the prompts", low=0)
    momentum: float = option(0.9, "share of the old running gradient that is kept", low=0, high=0.999)
    anchor: float = option(
        0.02, "share by which tuned values are drawn back to 0 in each update", low=0, high=1
    )
    discrepancy_weight: float = option(0.4, "λ, weight of the distance to the source statistics", low=0)
    diversity_weight: float = option(
        0.0,
        "weight of the entropy of the batch's mean prediction, to be raised; not for small batches",
        low=0,
    )
    shift: Literal["origin", "source_mean", "none"] = option("origin", "activation shift: where to")
    entropy_on: Literal["shifted", "unshifted"] = option("shifted", "logits whose entropy enters the loss")
    tolerance: float = option(
        2.0,
        "distance to the source, in units of what chance gives, up to which nothing is done, and from twice"
        " that on everything; 0: always everything",
        low=0,
    )
    window: int = option(
        64,
        "images in the statistics: earlier ones join those of a smaller batch; below 64 the shift is weaker",
        low=1,
    )
    update_images: int = option(64, "images that contribute to the gradient of an update, at least", low=1)
    samples: int = option(1, "pairs of forwards, each along directions of its own", low=1)
    every: int = option(1, "batches of which one is learnt from; the others take a single forward", low=1)

    def __post_init__(self) -> None:
        validate(self)

    @property
    def forwards(self) -> int:
        """Forwards that one step uses, where it learns."""
        return 2 * self.samples

    def init(self, info: ModelInfo, seed: int) -> PizoState:
        """Prompts drawn uniformly within the model's bound, norms as they are, nothing seen yet.

        Raises:
            BundleError: the bundle lacks source statistics or what is tuned, or its images depend on each
                other (batch statistics), so that none can have a perturbation of its own.
        """
        info.require_source(self.name)
        if "batch_statistics" in info.tunables:
            raise BundleError(
                f"{self.name} perturbs every image on its own, and {info.name} normalises over the batch; "
                "use zoa for residual networks"
            )
        prompts = np.zeros((0, info.width), np.float32)
        norms = np.zeros((0, 2, info.width), np.float32)
        if self.tune != "norms":
            info.require_tunable("prompts", self.name)
            prompts = uniform(seed, info.prompt_bound, (self.prompts, info.width))
        if self.tune != "prompts":
            info.require_tunable("norms", self.name)
            norms = np.zeros((len(info.norms), 2, info.width), np.float32)[self._rows(info)]
        return PizoState(
            step=0,
            seed=seed,
            prompts=prompts,
            norms=norms,
            prompts_momentum=np.zeros(prompts.shape),
            norms_momentum=np.zeros(norms.shape),
            prompts_gradient=np.zeros(prompts.shape),
            norms_gradient=np.zeros(norms.shape),
            window=empty_window(info),
        )

    def step(self, state: PizoState, images: ImageArray, network: Forward) -> tuple[Prediction, PizoState]:
        """Pairs of forwards around the current values, every image along a direction of its own."""
        info = network.info
        if state.step % self.every:
            outputs, sides = network(images, **self._tunables(state, {}, 0, info)), []
            features, logits = outputs.features, outputs.logits
        else:
            sides = self._sides(state, images, network)
            features = _mean([each.features for each in sides])
            logits = _mean([each.logits for each in sides])
        moments = Moments.of(features).merge(window_moments(state.window, len(images), self.window))
        distance = discrepancy(moments, info.require_source(self.name))
        need = self._need(distance, moments.count, info)
        offset = self._offset(moments, need, info)
        following = replace(state, step=state.step + 1, window=slide(state.window, features, self.window))
        if sides:
            following = self._learnt(following, sides, features, moments, offset, info)
        if following.images >= self.update_images:
            following = self._updated(following, need)
        logits = logits + offset
        diagnostics = {
            "entropy": float(entropy(logits).mean()),
            "discrepancy": distance,
            "need": need,
            "size": _rms(following.prompts if self.tune == "prompts" else following.norms),
        }
        return Prediction(logits, max(1, 2 * len(sides)), diagnostics=diagnostics), following

    def predict(self, state: PizoState, images: ImageArray, network: Forward) -> Prediction:
        """Predicts with the values as they are, unperturbed, and the shift as it is."""
        info = network.info
        moments = window_moments(state.window, 0, self.window)
        logits = network(images, **self._tunables(state, {}, 0, info)).logits
        if moments is not None:
            distance = discrepancy(moments, info.require_source(self.name))
            logits = logits + self._offset(moments, self._need(distance, moments.count, info), info)
        return Prediction(logits, 1, diagnostics={"entropy": float(entropy(logits).mean())})

    def _rows(self, info: ModelInfo) -> slice:
        """Those of the tuned norms, which follow each other, among the tunable ones."""
        names = adapted_norms(info, self.first_block, self.frozen_last_blocks, self.name)
        order = list(info.norms)
        return slice(order.index(names[0]), order.index(names[-1]) + 1)

    def _sides(self, state: PizoState, images: ImageArray, network: Forward) -> list[_Sides]:
        """Pairs of forwards around the current values."""
        found = []
        for sample in range(self.samples):
            directions = self._directions(state, sample, len(images))
            moved = [self._tunables(state, directions, sign, network.info) for sign in (1, -1)]
            found.append(_Sides(directions, *network.candidates(images, moved)))
        return found

    def _directions(self, state: PizoState, sample: int, count: int) -> dict[str, FloatArray]:
        """One for each image and each tunable, float32 `[N, …]`."""
        generator = np.random.default_rng([state.seed, state.step + 1, sample])
        found: dict[str, FloatArray] = {}
        if self.tune != "norms":
            found["prompts"] = generator.standard_normal((count, *state.prompts.shape), np.float32)
        if self.tune != "prompts":
            shape = (count, *state.norms.shape)
            if self.directions == "gaussian":
                found["norms"] = generator.standard_normal(shape, np.float32)
            else:
                found["norms"] = 2 * generator.integers(0, 2, shape, np.int8).astype(np.float32) - 1
        return found

    def _gradients(
        self, state: PizoState, slopes: FloatArray, directions: Mapping[str, FloatArray]
    ) -> dict[str, Any]:
        """The sums with each image's own slope along its own direction added."""
        sums: dict[str, Any] = {}
        for name, size in (("prompts", self.prompt_epsilon), ("norms", self.epsilon)):
            if name in directions and size:
                along = np.tensordot(slopes / (2 * size), directions[name], 1)
                sums[f"{name}_gradient"] = getattr(state, f"{name}_gradient") + along
        return sums

    def _tunables(
        self, state: PizoState, directions: Mapping[str, FloatArray], sign: int, info: ModelInfo
    ) -> Tunables:
        """What the network is fed at `values + sign · ε · directions`; without directions, shared by all."""
        fed: dict[str, FloatArray] = {}
        whole = {"prompts": state.prompts.shape, "norms": (len(info.norms), 2, info.width)}
        for name, size in (("prompts", self.prompt_epsilon), ("norms", self.epsilon)):
            values, along = getattr(state, name), directions.get(name)
            if not values.size:
                continue
            fed[name] = np.zeros((1 if along is None else len(along), *whole[name]), np.float32)
            tuned = fed[name][:, self._rows(info)] if name == "norms" else fed[name]
            if along is not None:  # in place: at the size of a batch, copies take longer than products
                np.multiply(along, np.float32(sign * size), out=tuned)
            tuned += values
        return fed

    def _slopes(
        self, sides: _Sides, features: FloatArray, moments: Moments, offset: FloatArray, info: ModelInfo
    ) -> FloatArray:
        """The difference of the loss along each image's own direction, float64 `[N]`."""
        plus, minus = sides.plus, sides.minus
        source = info.require_source(self.name)
        distance = outer_slopes(features, plus.features, minus.features, moments, source)
        moved = offset if self.entropy_on == "shifted" else np.float32(0)
        after, before = plus.logits + moved, minus.logits + moved
        slopes = self.discrepancy_weight * distance + entropy(after) - entropy(before)
        if self.diversity_weight:
            slopes -= self.diversity_weight * diversity_slopes(after, before)
        return slopes

    def _learnt(
        self,
        state: PizoState,
        sides: list[_Sides],
        features: FloatArray,
        moments: Moments,
        offset: FloatArray,
        info: ModelInfo,
    ) -> PizoState:
        """With the gradients of a batch."""
        state = replace(state, images=state.images + len(features))
        for each in sides:
            slopes = self._slopes(each, features, moments, offset, info)
            state = replace(state, **self._gradients(state, slopes, each.directions))
        return state

    def _updated(self, state: PizoState, share: float) -> PizoState:
        """One step along the running average of the gradients, at most a share of the rate long."""
        updates = state.updates + 1
        changes: dict[str, Any] = {}
        for name, rate in (("prompts", self.prompt_rate), ("norms", self.rate)):
            gradient = getattr(state, f"{name}_gradient")
            momentum = self.momentum * getattr(state, f"{name}_momentum") + (1 - self.momentum) * gradient
            average = momentum / (1 - self.momentum**updates)
            size = max(_rms(gradient), _rms(average))  # so that no step is longer than the rate
            step = rate * share * average / size if size > TINY else 0.0
            values = getattr(state, name)
            changes[name] = ((1 - self.anchor) * values - step).astype(np.float32)
            changes[f"{name}_momentum"] = momentum
            changes[f"{name}_gradient"] = np.zeros(gradient.shape)
        return replace(state, images=0, updates=updates, **changes)

    def _need(self, distance: float, count: int, info: ModelInfo) -> float:
        """From 0, where features are as near to the source as those of as many clean images, to 1.

        Of more than 64 images no more is asked than of 64: even clean ones differ a little from those that
        the source statistics are of, and the less is left to chance, the more that would look like.
        """
        if not self.tolerance:
            return 1.0
        chance = chance_discrepancy(info.require_source(self.name), min(count, REFERENCE_BATCH))
        return float(np.clip(distance / max(chance, TINY) / self.tolerance - 1, 0, 1))

    def _offset(self, moments: Moments, need: float, info: ModelInfo) -> FloatArray:
        """What the shift adds to the logits, `[K]`: of few images, whose mean is mostly their own, less."""
        if self.shift == "none":
            return logit_offset(info.head_weight, None)
        target = None if self.shift == "origin" else info.require_source(self.name).mean[-1]
        gain = min(1.0, moments.count / REFERENCE_BATCH) * need
        return logit_offset(info.head_weight, shift_vector(target, moments.mean[-1], gain))


@dataclass(frozen=True)
class _Sides:
    """Two forwards at both ends of each image's direction.

    Attributes:
        directions: by tunable, `[N, …]`.
        plus, minus: what the network says there.
    """

    directions: Mapping[str, FloatArray]
    plus: Outputs
    minus: Outputs

    @property
    def features(self) -> FloatArray:
        """In the middle, `[N, L, F]`."""
        return (self.plus.features + self.minus.features) / 2

    @property
    def logits(self) -> FloatArray:
        """In the middle, `[N, K]`."""
        return (self.plus.logits + self.minus.logits) / 2


def _mean(arrays: list[FloatArray]) -> FloatArray:
    return arrays[0] if len(arrays) == 1 else np.mean(arrays, axis=0)


def _rms(values: FloatArray) -> float:
    return float(np.sqrt(np.mean(np.square(values)))) if values.size else 0.0
