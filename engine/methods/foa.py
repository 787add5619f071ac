"""FOA: prompt tokens found by CMA-ES from many forwards, and activation shift (ICML 2024, arXiv 2404.01650).

The defaults are the behaviour of the official code with one exception: the covariance of the search. Where
paper and code differ there is an option.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from ..errors import InputError
from ..interface.method import Prediction, State, growing_array, late_array
from ..interface.options import option, validate
from ..model import FloatArray, Forward, ImageArray, ModelInfo, Outputs, SourceStatistics
from ..search import cma, spsa
from ..search.cma import CovarianceForm, Search
from ..statistics.activation_shift import logit_offset, moving_average, shift_vector
from ..statistics.moments import Moments
from ..statistics.objective import (
    REFERENCE_BATCH,
    DiscrepancyNorm,
    LossScale,
    alignment_loss,
    discrepancy,
    entropy,
)
from ..statistics.window import empty_window, slide, window_moments


@dataclass(frozen=True)
class FoaState(Search, State):
    """What FOA carries: the fields of a search in P·D dimensions, which prompts are drawn from, and these.

    Attributes:
        best: float32 `[P, D]`, the best prompts of the last batch; before it, random ones.
        window: features of the last images, float32 `[W, L, F]`, W at most the option `window`.
        center: running mean of the last feature, float64 `[F]`, or None before the first batch.
    """

    best: FloatArray
    window: FloatArray = growing_array()
    center: FloatArray | None = late_array("feature_width")


@dataclass(frozen=True)
class _Candidate:
    """One forward, judged; features `[N, L, F]` only where a window needs them.

    `mean` is that of the last feature, `[F]`, and `distance` that of all of them to the source statistics.
    """

    index: int
    loss: float
    distance: float
    mean: FloatArray
    logits: FloatArray
    features: FloatArray | None


@dataclass(frozen=True)
class Foa:
    """FOA as released, but with a covariance that stays the identity.

    Of the covariance, a stream learns next to nothing in the 2,304 dimensions of ViT-B (its learning rates
    are near 1e-6 per batch), while it takes two matrices of 42 MB. `covariance=full` is the released search.

    With `population=2, carry_best=false` this is the "FOA with two forwards" that FOZO and ZOA compare with.

    Small and ragged batches: only the order of the losses matters, so the size of a step does not depend on
    that of the batch. With `window`, the statistics are those of the last so many images, earlier ones as
    they were under the best prompts of their batch. Without it, a batch of one image has no standard
    deviation, so only its mean enters the discrepancy.
    """

    name: ClassVar[str] = "foa"

    prompts: int = option(3, "number of prompt tokens", low=1)
    population: int = option(27, "prompts drawn per batch, each of one forward", low=2)
    carry_best: bool = option(
        True, "whether the best prompts of the batch before take part: one more forward"
    )
    covariance: CovarianceForm = option(
        "identity",
        "what the search learns of its covariance: nothing, its diagonal, or all of it (official code)",
    )
    sigma: float = option(1.0, "σ, step size of the search at the start", low=1e-3)
    discrepancy_weight: float = option(0.4, "λ, weight of the distance to the source statistics", low=0)
    shift: Literal["source_mean", "origin", "none"] = option(
        "source_mean",
        "activation shift: features are centred at the source mean, at the origin, or not at all",
    )
    shift_gain: float = option(1.0, "how far the features are moved", low=0)
    shift_update: Literal["lagged", "inclusive"] = option(
        "lagged", "whether the running mean includes the batch that is predicted"
    )
    shift_decay: float = option(0.9, "share of the old running mean that is kept", low=0, high=1)
    entropy_on: Literal["shifted", "unshifted"] = option(
        "unshifted", "logits whose entropy enters the loss: unshifted (official code), or shifted (paper)"
    )
    loss_norm: DiscrepancyNorm = option(
        "squared", "distance to the source statistics; l2_per_layer is the paper's"
    )
    window: int = option(
        0, "images in the statistics: earlier ones join those of a smaller batch; 0 is the batch alone", low=0
    )
    loss_scale: LossScale = option(
        "sum", "sum over the batch as released, or per image, scaled to a batch of 64; the order is the same"
    )
    output: Literal["best", "clean"] = option(
        "best", "prediction: the candidate of smallest loss, or the mean of the search (one more forward)"
    )

    def __post_init__(self) -> None:
        validate(self)
        if (self.shift_update, self.entropy_on) == ("inclusive", "shifted") and self.shift != "none":
            raise InputError(
                "foa: entropy_on=shifted needs a shift that is known before the forwards, and with "
                "shift_update=inclusive it is not; use shift_update=lagged or entropy_on=unshifted"
            )

    @property
    def forwards(self) -> int:
        """Forwards that one step uses."""
        return self.population + self.carry_best + (self.output == "clean")

    def init(self, info: ModelInfo, seed: int) -> FoaState:
        """A search around no prompts at all, and best prompts drawn uniformly within the model's bound.

        Raises:
            BundleError: the bundle has no source statistics for this graph, or no prompts to tune.
        """
        info.require_source("foa")
        info.require_tunable("prompts", "foa")
        shape = (self.prompts, info.width)
        return FoaState(
            step=0,
            seed=seed,
            **vars(cma.initial(self.prompts * info.width, self.sigma, self.covariance)),
            best=spsa.uniform(seed, info.prompt_bound, shape),
            window=empty_window(info),
        )

    def step(self, state: FoaState, images: ImageArray, network: Forward) -> tuple[Prediction, FoaState]:
        """One batch in the order of the official code (docs/methods.md)."""
        info, source = network.info, network.info.require_source("foa")
        solutions = cma.ask(state, state.seed, state.step, self.population)
        if self.carry_best:
            solutions = np.vstack([solutions, state.best.reshape(1, -1)])
        prompts = solutions.astype(np.float32).reshape(-1, *state.best.shape)

        candidates = self._candidates(state, prompts, images, network)
        best = next(candidates)
        losses, means = [best.loss], [best.mean]
        for each in candidates:  # of equals, the first is the best
            losses.append(each.loss)
            means.append(each.mean)
            best = each if each.loss < best.loss else best

        center = moving_average(state.center, np.mean(means, axis=0), self.shift_decay)
        used = center if self.shift_update == "inclusive" else state.center
        unshifted = best.logits
        if self.output == "clean":
            unshifted = network(images, prompts=_mean_prompts(state)).logits
        logits = unshifted + logit_offset(info.head_weight, self._shift(used, source))
        diagnostics = {
            "sigma": state.sigma,
            "best": float(best.index),
            "entropy": float(entropy(logits).mean()),
            "discrepancy": best.distance,
        }
        told = cma.tell(state, solutions, np.asarray(losses), self.population)
        return Prediction(logits, self.forwards, best.loss, diagnostics), replace(
            told,
            step=state.step + 1,
            best=prompts[best.index].copy(),
            window=state.window if best.features is None else slide(state.window, best.features, self.window),
            center=center,
        )

    def predict(self, state: FoaState, images: ImageArray, network: Forward) -> Prediction:
        """Predicts with the last batch's best prompts, or the search's mean, and the shift as it is."""
        info = network.info
        shift = self._shift(state.center, info.require_source("foa"))
        prompts = state.best[None] if self.output == "best" else _mean_prompts(state)
        logits = network(images, prompts=prompts).logits + logit_offset(info.head_weight, shift)
        return Prediction(logits, 1, diagnostics={"entropy": float(entropy(logits).mean())})

    def _candidates(
        self, state: FoaState, prompts: FloatArray, images: ImageArray, network: Forward
    ) -> Iterator[_Candidate]:
        """One forward for each of `prompts` `[C, P, D]`, judged at once: its features need not be kept."""
        info, source = network.info, network.info.require_source("foa")
        # Where the loss is to see the shift, it is the one known before this batch: `__post_init__`.
        shift = self._shift(state.center, source) if self.entropy_on == "shifted" else None
        offset = logit_offset(info.head_weight, shift)
        past = window_moments(state.window, len(images), self.window)
        for index, outputs in enumerate(_forwards(prompts, images, network)):
            moments = Moments.of(outputs.features)
            distance = discrepancy(moments.merge(past), source, self.loss_norm, info.feature_widths)
            loss = alignment_loss(
                distance, entropy(outputs.logits + offset), self.discrepancy_weight, self.loss_scale
            )
            features = outputs.features if self.window else None
            yield _Candidate(index, loss, distance, moments.mean[-1], outputs.logits, features)

    def _shift(self, center: FloatArray | None, source: SourceStatistics) -> FloatArray | None:
        if self.shift == "none":
            return None
        return shift_vector(None if self.shift == "origin" else source.mean[-1], center, self.shift_gain)


def _forwards(prompts: FloatArray, images: ImageArray, network: Forward) -> Iterator[Outputs]:
    """Two candidates at a time, or more of a small batch: workers stay busy, and memory stays small."""
    at_once = max(2, 2 * REFERENCE_BATCH // max(1, len(images)))
    for start in range(0, len(prompts), at_once):
        some = prompts[start : start + at_once]
        yield from network.candidates(images, [{"prompts": each[None]} for each in some])


def _mean_prompts(state: FoaState) -> FloatArray:
    """The mean of the search as a tunable, float32 `[1, P, D]`."""
    return state.mean.astype(np.float32).reshape(1, *state.best.shape)
