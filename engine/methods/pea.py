"""PEA, the diagonal variant: tokens behind each block are aligned with clean images, in two forwards.

PEA (ICLR 2026), after its official code for vision transformers. Averages over several views are left out,
and variances of channels stand for covariance matrices. It was not verified against a published number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..interface.method import Binding, Prediction, State, Step
from ..interface.method_options import option, validate
from ..interface.request import Request, Requests
from ..model import ActivationUse, FloatArray, ImageArray, ModelInfo, SourceStatistics, Tunables
from ..statistics.feature_statistics import ChannelMoments
from ..statistics.objective import entropy
from ..statistics.recentred_activations import RecentredActivations, map_to_source

LEAST_DRIFT = 1e-6  # average up to which no batch replaces the moments


@dataclass(frozen=True)
class PeaState(State):
    """Running moments behind each of B blocks.

    Attributes:
        moments: of all tokens, float64 `[C]`; those of clean images before a block's first update.
        drift: running average of the drift of each block, float64 `[B]`.
        weights: w of the last batch, float64 `[B]`.
        updates: of each block since the beginning or the last reset, int64 `[B]`.
        entropy: running average of the mean entropy; -1 before the first batch.
        resets: made so far.
    """

    moments: ChannelMoments
    drift: FloatArray
    weights: FloatArray
    updates: NDArray[np.int64]
    entropy: float = -1.0
    resets: int = 0


@dataclass(frozen=True)
class Pea:
    """Alignment behind blocks: `X ← X + w [(X − µ) √((σ_S² + ε) / (σ² + ε)) + µ_S − X]`; unverified.

    A first forward gives each block its weight w: the distance of the class token's mean and variance to
    those of clean images, scaled from its least to its greatest value over the blocks. The second forward is
    aligned. µ and σ² are running averages over all tokens. The official code updates them inside of this
    forward. Here they are those of the batches before, because images of a call do not depend on each other;
    without any, they are those of the first forward. Behind the last block there is only the class token,
    which has no variance in a batch of one image. Such a batch changes nothing there. Class tokens are
    compared behind the next norm; the official code compares them in front of it, with moments of all clean
    tokens.
    """

    name: ClassVar[str] = "pea"

    rate: float = option(0.02, "m, weight of a batch in the running moments", low=0, high=1)
    drift_limit: float = option(
        4.0,
        "γ: a batch replaces the moments of a block if its drift is above this multiple of the average, which"
        " includes that drift; so it never does if γ α is 1 or more",
        low=0,
    )
    average_rate: float = option(
        0.2, "α, weight of a batch in the averages of drift and entropy", low=0, high=1
    )
    least_weight: float = option(
        0.001, "weight below which a block stays as it is, its moments too", low=0, high=1
    )
    entropy_rise: float = option(
        1.0, "rise of the mean entropy above its average after which all is forgotten, in nats", low=0
    )
    epsilon: float = option(1e-5, "ε, added to variances", low=0)

    def __post_init__(self) -> None:
        validate(self)

    @property
    def forwards(self) -> int:
        """Forwards that one step uses."""
        return 2

    @property
    def activations(self) -> ActivationUse:
        """Activations that are aligned."""
        return ActivationUse(("output",))

    def bind(self, model: ModelInfo) -> BoundPea:
        """Return the method bound to a model.

        Raises:
            BundleError: the bundle lacks activations, or source statistics.
        """
        source = model.require_source(self.name)
        return BoundPea(self, model, source, RecentredActivations.select(model, self.activations, self.name))


@dataclass(frozen=True, eq=False)
class BoundPea(Binding[Pea]):
    """Alignment of block outputs on one model.

    Attributes:
        source: statistics of clean images.
        outputs: of the blocks.
    """

    source: SourceStatistics
    outputs: RecentredActivations

    def init(self, seed: int) -> PeaState:
        """Return the moments of clean images, and no weights."""
        count = len(self.outputs.activations)
        updates = np.zeros(count, np.int64)
        return PeaState(0, seed, self.outputs.source, np.zeros(count), np.zeros(count), updates)

    def step(self, state: PeaState, images: ImageArray) -> Step[PeaState]:
        """Weigh the blocks by a plain forward, and predict with aligned ones."""
        (plain,) = yield Request(images)
        weights = self._weigh_blocks(plain.features)
        moments = self._choose_moments(state, self.outputs.read_moments(plain))
        (outputs,) = yield Request(images, [self._build_tunables(moments, weights)])
        mean_entropy = float(entropy(outputs.logits).mean())
        next_state = self._update_moments(state, weights, self.outputs.read_moments(outputs))
        next_state = replace(next_state, step=state.step + 1, weights=weights)
        diagnostics = {"entropy": mean_entropy, "strongest_block": float(weights.argmax())}
        prediction = Prediction(outputs.logits, 2, diagnostics=diagnostics)
        return prediction, self._watch_entropy(next_state, mean_entropy)

    def predict(self, state: PeaState, images: ImageArray) -> Requests[Prediction]:
        """Predict with the current moments and the weights of the last batch."""
        (outputs,) = yield Request(images, [self._build_tunables(state.moments, state.weights)])
        return Prediction(outputs.logits, 1, diagnostics={"entropy": float(entropy(outputs.logits).mean())})

    def _weigh_blocks(self, features: FloatArray) -> FloatArray:
        """Return w of every block from features `[N, L, F]`, float64 `[B]` in 0..1."""
        blocks = [activation.block for activation in self.outputs.activations]
        tokens = features[:, blocks].astype(np.float64)
        mean, std = self.source.mean[blocks], self.source.std[blocks]
        distance = np.linalg.norm(tokens.mean(axis=0) - mean, axis=1)
        if len(tokens) > 1:  # a single image has no variance
            distance += np.linalg.norm(tokens.var(axis=0, ddof=1) - np.square(std), axis=1)
        span = float(np.ptp(distance))
        weights: FloatArray = (distance - distance.min()) / (span or 1.0)
        return weights

    def _build_tunables(self, moments: ChannelMoments, weights: FloatArray) -> Tunables:
        source, epsilon = self.outputs.source, self.options.epsilon
        strength = self._spread(np.where(weights < self.options.least_weight, 0.0, weights))
        slope, intercept = map_to_source(
            replace(moments, variance=moments.variance + epsilon),
            replace(source, variance=source.variance + epsilon),
            strength,
            limit=math.inf,
            epsilon=0.0,
        )
        return self.outputs.build_tunables(slope, intercept)

    def _spread(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return the value of each block `[B]` for each of its channels `[C]`."""
        return np.repeat(values, [activation.width for activation in self.outputs.activations])

    def _choose_moments(self, state: PeaState, plain: ChannelMoments) -> ChannelMoments:
        """Return the running moments; in blocks without any, those of the plain forward if they vary."""
        is_new = (state.updates == 0) & self._vary(plain)
        return _select(self._spread(is_new), plain, state.moments)

    def _vary(self, batch: ChannelMoments) -> NDArray[np.bool_]:
        """Return for every block `[B]` if there is any variance, which a single token has not."""
        return np.maximum.reduceat(batch.variance, self._list_starts()) > 0

    def _list_starts(self) -> NDArray[np.int64]:
        """Return the index of the first channel of every block, `[B]`."""
        return np.cumsum([0, *(activation.width for activation in self.outputs.activations[:-1])])

    def _update_moments(self, state: PeaState, weights: FloatArray, batch: ChannelMoments) -> PeaState:
        """Return the state with a batch in its running moments; blocks that drift far take it over."""
        options, old = self.options, state.moments
        is_aligned, is_new = (weights >= options.least_weight) & self._vary(batch), state.updates == 0
        widths = [activation.width for activation in self.outputs.activations]
        drift = np.add.reduceat(np.abs(batch.mean - old.mean), self._list_starts()) / widths
        average = state.drift + options.average_rate * (drift - state.drift)
        is_far = (average > LEAST_DRIFT) & (drift > options.drift_limit * average)
        rate = np.where(is_new | is_far, 1.0, options.rate)
        rate = self._spread(np.where(is_aligned, rate, 0.0))
        moments = ChannelMoments(
            old.mean + rate * (batch.mean - old.mean),
            old.variance + rate * (batch.variance - old.variance),
        )
        average = np.where(is_aligned & ~is_new, average, state.drift)
        return replace(state, moments=moments, drift=average, updates=state.updates + is_aligned)

    def _watch_entropy(self, state: PeaState, value: float) -> PeaState:
        """Return the state with its average entropy, or reset if that was exceeded by far."""
        if state.entropy >= 0 and value > state.entropy + self.options.entropy_rise:
            start = self.init(state.seed)
            return replace(start, step=state.step, entropy=value, resets=state.resets + 1)
        average = state.entropy + self.options.average_rate * (value - state.entropy)
        return replace(state, entropy=value if state.entropy < 0 else average)


def _select(condition: NDArray[Any], left: ChannelMoments, right: ChannelMoments) -> ChannelMoments:
    """Return the moments of `left` where the condition `[C]` holds, and those of `right` elsewhere."""
    return ChannelMoments(
        np.where(condition, left.mean, right.mean), np.where(condition, left.variance, right.variance)
    )
