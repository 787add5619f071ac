"""QuAR: re-centre the inputs of the last blocks' products, and the class token, in one forward.

Cha, Kwon, Lee, arXiv 2610.08358. The paper has no code, and its text is no source here: formula, defaults and
limits are taken from notes on it, and nothing here was verified against a published number.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from ..interface.method import Binding, Prediction, State, Step
from ..interface.method_options import option, validate
from ..interface.request import PLAIN, Request, Requests
from ..model import ActivationUse, FloatArray, ImageArray, ModelInfo, Outputs, Tunables
from ..statistics.feature_statistics import ChannelMoments
from ..statistics.objective import entropy
from ..statistics.recentred_activations import RecentredActivations, map_to_source

PRODUCTS = ("qkv", "proj", "fc1", "fc2")


@dataclass(frozen=True)
class QuarState(State):
    """Running moments, which start at those of clean images.

    Attributes:
        local: of the inputs of products, float64 `[C]`; C is 0 without the local branch.
        last: of the last feature, float64 `[F]`.
        batches: number that have joined them.
    """

    local: ChannelMoments
    last: ChannelMoments
    batches: int = 0


@dataclass(frozen=True)
class Quar:
    """Re-centring: `x̂ = (1 − λ) x + λ [(x − µ) · min(σ_S / (σ + ε), limit) + µ_S]`, per channel; unverified.

    The local branch does so at the inputs of qkv, proj, fc1 and fc2 of the last blocks, with moments over all
    tokens of the batches before. The global branch does so at the class token behind the last norm, with the
    batch included. Where the notes on the paper are silent the choice is ours: moments are those of a
    mixture, so the variance between batches counts, and those of clean images count as one batch.
    """

    name: ClassVar[str] = "quar"

    branches: Literal["both", "local", "global"] = option(
        "both", "inputs of products in the last blocks (local), the last feature (global), or both"
    )
    blocks: int = option(4, "number of last blocks of the local branch", low=1)
    local_strength: float = option(0.5, "λ of the local branch", low=0, high=1)
    global_strength: float = option(1.0, "λ of the global branch", low=0, high=1)
    average: Literal["cumulative", "exponential"] = option(
        "cumulative",
        "running moments: all batches weigh the same (cumulative), or recent ones more (exponential)",
    )
    rate: float = option(0.1, "weight of a batch in the exponential average", low=0, high=1)
    limit: float = option(3.0, "largest ratio of standard deviations, clean to running", low=0)
    epsilon: float = option(1e-6, "ε, added to the running standard deviation", low=0)
    prior: float = option(
        1.0, "number of batches that the clean images count as in the cumulative average", low=0
    )

    def __post_init__(self) -> None:
        validate(self)

    @property
    def forwards(self) -> int:
        """Forwards that one step uses."""
        return 1

    @property
    def activations(self) -> ActivationUse | None:
        """Activations that the local branch re-centres."""
        return None if self.branches == "global" else ActivationUse(PRODUCTS, self.blocks)

    def bind(self, model: ModelInfo) -> BoundQuar:
        """Return the method bound to a model.

        Raises:
            BundleError: the bundle lacks source statistics, or activations for the local branch.
        """
        source = model.require_source(self.name)
        last = ChannelMoments(source.mean[-1].astype(np.float64), np.square(source.std[-1], dtype=np.float64))
        use = self.activations
        local = None if use is None else RecentredActivations.select(model, use, self.name)
        return BoundQuar(self, model, last, local)


@dataclass(frozen=True, eq=False)
class BoundQuar(Binding[Quar]):
    """Re-centring on one model.

    Attributes:
        source: moments of the last feature of clean images.
        local: the activations of the local branch; None without it.
    """

    source: ChannelMoments
    local: RecentredActivations | None

    def init(self, seed: int) -> QuarState:
        """Return the moments of clean images."""
        empty = ChannelMoments(np.zeros(0), np.zeros(0))
        return QuarState(0, seed, empty if self.local is None else self.local.source, self.source)

    def step(self, state: QuarState, images: ImageArray) -> Step[QuarState]:
        """Predict with the local moments so far and global ones that include the batch."""
        (outputs,) = yield Request(images, [self._build_tunables(state)])
        weight = self._weigh_batch(state.batches)
        last = state.last.blend(ChannelMoments.of(outputs.features[:, -1]), weight)
        next_state = replace(state, step=state.step + 1, last=last, batches=state.batches + 1)
        if self.local is not None:
            moments = self.local.read_moments(outputs)
            next_state = replace(next_state, local=state.local.blend(moments, weight))
        return self._predict(outputs, next_state), next_state

    def predict(self, state: QuarState, images: ImageArray) -> Requests[Prediction]:
        """Predict with the current moments."""
        (outputs,) = yield Request(images, [self._build_tunables(state)])
        return self._predict(outputs, state)

    def _weigh_batch(self, batches: int) -> float:
        """Return the weight of a batch in the running moments, after so many batches."""
        if self.options.average == "exponential":
            return self.options.rate
        return 1 / (batches + 1 + self.options.prior)

    def _build_tunables(self, state: QuarState) -> Tunables:
        if self.local is None:
            return PLAIN
        strength = self.options.local_strength
        return self.local.build_tunables(*self._map(state.local, self.local.source, strength))

    def _map(
        self, moments: ChannelMoments, source: ChannelMoments, strength: float
    ) -> tuple[FloatArray, FloatArray]:
        return map_to_source(moments, source, strength, self.options.limit, self.options.epsilon)

    def _predict(self, outputs: Outputs, state: QuarState) -> Prediction:
        logits = outputs.logits
        # Mapped to the source by its own mean and no variance, any image becomes the mean of the source.
        if self.options.branches != "local" and state.last.variance.any():
            slope, intercept = self._map(state.last, self.source, self.options.global_strength)
            features = outputs.features[:, -1] * slope + intercept
            logits = (features @ self.model.head_weight.T + self.model.head_bias).astype(np.float32)
        return Prediction(logits, 1, diagnostics={"entropy": float(entropy(logits).mean())})
