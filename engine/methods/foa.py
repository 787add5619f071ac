"""FOA: prompt tokens found by CMA-ES from many forwards, and activation shift (ICML 2024, arXiv 2404.01650).

The defaults are the behaviour of the official code with one exception: the covariance of the search. Where
paper and code differ there is an option.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from ..errors import InputError
from ..interface.method import Binding, Prediction, State, Step, optional_array, variable_length_array
from ..interface.method_options import option, validate
from ..interface.request import Request, Requests
from ..model import PROMPTS, FloatArray, ImageArray, ModelInfo, Outputs, SourceStatistics
from ..search import cma, spsa
from ..search.cma import CovarianceForm, Search
from ..statistics.activation_shift import compute_shift_offset, update_average
from ..statistics.feature_statistics import Moments
from ..statistics.objective import (
    REFERENCE_BATCH,
    DiscrepancyNorm,
    LossScale,
    compute_alignment_loss,
    compute_discrepancy,
    entropy,
)
from ..statistics.window import compute_window_moments, create_empty_window, slide_window


@dataclass(frozen=True)
class FoaState(State):
    """The search in P·D dimensions, which prompts are drawn from, and running statistics.

    Attributes:
        search: the distribution that CMA-ES adapts.
        best: float32 `[P, D]`, the best prompts of the last batch; before it, random ones.
        window: features of the last images, float32 `[W, L, F]`, W at most the option `window`.
        center: running mean of the last feature, float64 `[F]`, or None before the first batch.
    """

    search: Search
    best: FloatArray
    window: FloatArray = variable_length_array()
    center: FloatArray | None = optional_array("feature_width")


@dataclass(frozen=True)
class _Candidate:
    """One forward and its loss.

    Attributes:
        index: number of the candidate.
        loss: its loss.
        distance: of the features to the source statistics.
        mean: mean of the last feature, `[F]`.
        logits: `[N, K]`.
        features: `[N, L, F]` where a window needs them, or None.
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

    def bind(self, model: ModelInfo) -> BoundFoa:
        """Return the method bound to a model.

        Raises:
            BundleError: the bundle has no source statistics for this graph, or no prompts to tune.
        """
        source = model.require_source(self.name)
        model.require_tunable(PROMPTS, self.name)
        return BoundFoa(self, model, source)


@dataclass(frozen=True, eq=False)
class BoundFoa(Binding[Foa]):
    """FOA on one model.

    Attributes:
        source: statistics of clean images.
    """

    source: SourceStatistics

    def init(self, seed: int) -> FoaState:
        """Return a search around no prompts at all, and best prompts drawn uniformly within the bound."""
        options, model = self.options, self.model
        return FoaState(
            step=0,
            seed=seed,
            search=cma.start_search(options.prompts * model.width, options.sigma, options.covariance),
            best=spsa.draw_uniform(seed, model.prompt_bound, (options.prompts, model.width)),
            window=create_empty_window(model),
        )

    def step(self, state: FoaState, images: ImageArray) -> Step[FoaState]:
        """Process one batch in the order of the official code (docs/specification.md §4.3)."""
        options = self.options
        solutions = cma.ask(state.search, state.seed, state.step, options.population)
        if options.carry_best:
            solutions = np.vstack([solutions, state.best.reshape(1, -1)])
        prompts = solutions.astype(np.float32).reshape(-1, *state.best.shape)

        best, losses, means = yield from self._evaluate_candidates(state, prompts, images)
        center = update_average(state.center, np.mean(means, axis=0), options.shift_decay)
        unshifted = best.logits
        if options.output == "clean":
            (clean,) = yield Request(images, [{PROMPTS: _build_mean_prompts(state)}])
            unshifted = clean.logits
        inclusive = options.shift_update == "inclusive"
        logits = unshifted + self._compute_offset(center if inclusive else state.center)
        diagnostics = {
            "sigma": state.search.sigma,
            "best": float(best.index),
            "entropy": float(entropy(logits).mean()),
            "discrepancy": best.distance,
        }
        window = state.window
        if best.features is not None:
            window = slide_window(window, best.features, options.window)
        return Prediction(logits, options.forwards, best.loss, diagnostics), FoaState(
            step=state.step + 1,
            seed=state.seed,
            search=cma.tell(state.search, solutions, np.asarray(losses), options.population),
            best=prompts[best.index].copy(),
            window=window,
            center=center,
        )

    def predict(self, state: FoaState, images: ImageArray) -> Requests[Prediction]:
        """Predict with the last batch's best prompts, or the search's mean, and the current shift."""
        prompts = state.best[None] if self.options.output == "best" else _build_mean_prompts(state)
        (outputs,) = yield Request(images, [{PROMPTS: prompts}])
        logits = outputs.logits + self._compute_offset(state.center)
        return Prediction(logits, 1, diagnostics={"entropy": float(entropy(logits).mean())})

    def _evaluate_candidates(
        self, state: FoaState, prompts: FloatArray, images: ImageArray
    ) -> Requests[tuple[_Candidate, list[float], list[FloatArray]]]:
        """Request one forward per prompts `[C, P, D]`; return the best candidate, all losses and all means.

        Two candidates at a time, or more of a small batch: workers stay busy, and memory stays small.
        """
        options = self.options
        # A loss of shifted logits uses the shift from before this batch: `__post_init__`.
        offset = self._compute_offset(state.center if options.entropy_on == "shifted" else None)
        earlier_moments = compute_window_moments(state.window, len(images), options.window)
        at_once = max(2, 2 * REFERENCE_BATCH // max(1, len(images)))
        best: _Candidate | None = None
        losses, means = [], []
        for start in range(0, len(prompts), at_once):
            tunables = [{PROMPTS: candidate[None]} for candidate in prompts[start : start + at_once]]
            answers = yield Request(images, tunables)
            for index, outputs in enumerate(answers, start):
                candidate = self._evaluate(index, outputs, offset, earlier_moments)
                losses.append(candidate.loss)
                means.append(candidate.mean)
                if best is None or candidate.loss < best.loss:  # of equals, the first is the best
                    best = candidate
            del answers, outputs  # before the next ones are computed
        assert best is not None
        return best, losses, means

    def _evaluate(
        self, index: int, outputs: Outputs, offset: FloatArray, earlier_moments: Moments | None
    ) -> _Candidate:
        options = self.options
        moments = Moments.of(outputs.features)
        distance = compute_discrepancy(
            moments.merge(earlier_moments), self.source, options.loss_norm, self.model.feature_widths
        )
        entropies = entropy(outputs.logits + offset)
        loss = compute_alignment_loss(distance, entropies, options.discrepancy_weight, options.loss_scale)
        features = outputs.features if options.window else None
        return _Candidate(index, loss, distance, moments.mean[-1], outputs.logits, features)

    def _compute_offset(self, center: FloatArray | None) -> FloatArray:
        options, head_weight = self.options, self.model.head_weight
        return compute_shift_offset(head_weight, self.source, center, options.shift, options.shift_gain)


def _build_mean_prompts(state: FoaState) -> FloatArray:
    """Return the mean of the search as a tunable, float32 `[1, P, D]`."""
    return state.search.mean.astype(np.float32).reshape(1, *state.best.shape)
