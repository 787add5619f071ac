"""PACE: norms found by CMA-ES in a random projection, until the search settles (ECML-PKDD 2026, 2603.28678).

The steps and values are those of stored files of the official code. Ours are the covariance, checks of
small batches together, and that a domain's statistics begin with the batch that shows it even if the last
search had settled. No average was found in the publication's files, so no published figure has been
reproduced with this file.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, NamedTuple

import numpy as np

from ..errors import BundleError
from ..interface.method import Binding, Prediction, State, Step, optional_array, variable_length_array
from ..interface.method_options import option, validate
from ..interface.request import Request, Requests
from ..model import NORMS, FloatArray, ImageArray, ModelInfo, Outputs, SourceStatistics
from ..search import cma
from ..search.cma import CovarianceForm, Search
from ..search.fastfood import Fastfood, draw_fastfood, project
from ..search.norm_layout import NormLayout
from ..search.norm_selection import select_norms
from ..statistics.activation_shift import compute_shift_offset, update_average
from ..statistics.domain_detector import DomainEstimate, DomainRules, Observation, SmallBatches, observe
from ..statistics.objective import REFERENCE_BATCH, LossScale, compute_outputs_loss, entropy

TINY = 1e-12


@dataclass(frozen=True)
class PaceState(State):
    """The search in p dimensions, the domain, and what earlier domains taught.

    Attributes:
        search: the distribution that CMA-ES adapts.
        best: best point of the last batch, float64 `[p]`.
        settled: the search has stopped, and its mean is applied.
        tries_bank: the next batch tries the points of the bank.
        domain: running statistics by which a new domain is noticed.
        bank: means of earlier domains' searches, the oldest first, float64 `[n, p]`.
        center: running mean of the last feature, float64 `[F]`, or None before the first batch of a domain.
    """

    search: Search
    best: FloatArray
    settled: bool
    tries_bank: bool
    domain: DomainEstimate
    bank: FloatArray = variable_length_array()
    center: FloatArray | None = optional_array("feature_width")


class _Scores(NamedTuple):
    """Losses of points, means of their last feature, and the best one's number and outputs."""

    losses: list[float]
    means: list[FloatArray]
    best: int
    outputs: Outputs


@dataclass(frozen=True)
class Pace:
    """PACE: 28 forwards per batch while it searches a domain, and one when it has settled; unverified.

    Gains and biases of norms are a fixed random projection (Fastfood) of p numbers, which CMA-ES finds with
    FOA's loss. Losses only rank candidates, so the size of a batch does not matter for the size of a step; a
    batch of one image has no standard deviation, and only its mean enters the discrepancy.
    """

    name: ClassVar[str] = "pace"

    first_block: int = option(1, "first block whose norms are adapted, counted from 0", low=0)
    frozen_last_blocks: int = option(
        3, "number of last blocks whose norms stay frozen; fewer if none would be left to adapt", low=0
    )
    dimension: int = option(2304, "p, numbers that are searched; at most as many as the norms have", low=1)
    projection_seed: int = option(2020, "seed of the projection, which is the same for all streams", low=0)
    population: int = option(27, "points drawn per batch, each of one forward", low=2)
    sigma: float = option(0.05, "σ, step size of the search at the start", low=1e-4)
    covariance: CovarianceForm = option(
        "identity",
        "what the search learns of its covariance: nothing, its diagonal, or all of it (official code)",
    )
    settle_below: float = option(
        0.045, "relative move of the search's mean below which the search stops; 0: never", low=0
    )
    discrepancy_weight: float = option(0.4, "λ; the source has 0.2 for ImageNet-R", low=0)
    loss_scale: LossScale = option(
        "sum", "sum over the batch as released, or per image, scaled to a batch of 64; the order is the same"
    )
    shift: Literal["source_mean", "origin", "none"] = option(
        "source_mean",
        "activation shift: features are centred at the source mean, at the origin, or not at all",
    )
    shift_decay: float = option(0.9, "share of the old running mean that is kept", low=0, high=1)
    bank_limit: int = option(30, "domains in the bank at most", low=1)
    bank_choices: int = option(
        4, "points of the bank that stand for drawn ones in the first batch of a domain, at most", low=1
    )
    restart: Literal["origin", "best"] = option(
        "origin",
        "where the search of a new domain begins: at no change (official code, by mistake), or at the best"
        " point of the bank",
    )
    domain_threshold: float = option(
        0.03, "γ, distance of a batch's embedding from the domain above which it is another one", low=0
    )
    domain_min_batch: int = option(64, "images that a check for a new domain needs", low=1)
    domain_small_batches: SmallBatches = option(
        "accumulate", "smaller batches: checked together once they are enough, or not at all"
    )
    domain_decay: float = option(
        0.8, "share of the old domain statistics that one batch keeps", low=0, high=1
    )

    def __post_init__(self) -> None:
        validate(self)

    @property
    def forwards(self) -> int:
        """Forwards that one step uses while it searches."""
        return self.population + 1

    @property
    def domain_rules(self) -> DomainRules:
        """The rules by which domains are told apart."""
        return DomainRules(
            self.domain_threshold, self.domain_min_batch, self.domain_small_batches, self.domain_decay
        )

    def bind(self, model: ModelInfo) -> BoundPace:
        """Return the method bound to a model.

        Raises:
            BundleError: the bundle has no source statistics for this graph, or no norms that can be adapted.
        """
        source = model.require_source(self.name)
        model.require_tunable(NORMS, self.name)
        names = select_norms(model, self.first_block, self.frozen_last_blocks, self.name)
        layout = NormLayout.of(model, names)
        generator = np.random.default_rng(self.projection_seed)
        dimension = min(self.dimension, layout.size)
        return BoundPace(
            self, model, source, layout, draw_fastfood(generator, layout.size, gains="signs"), dimension
        )


@dataclass(frozen=True, eq=False)
class BoundPace(Binding[Pace]):
    """PACE on one model.

    Attributes:
        source: statistics of clean images.
        layout: positions of the adapted norms, with V values.
        fastfood: random numbers of the projection.
        dimension: p.
    """

    source: SourceStatistics
    layout: NormLayout
    fastfood: Fastfood
    dimension: int

    def init(self, seed: int) -> PaceState:
        """Return a search around no change, no domain and an empty bank."""
        return PaceState(
            step=0,
            seed=seed,
            search=self._start_search(),
            best=np.zeros(self.dimension),
            settled=False,
            tries_bank=False,
            domain=DomainEstimate(),
            bank=np.zeros((0, self.dimension)),
        )

    def step(self, state: PaceState, images: ImageArray) -> Step[PaceState]:
        """Search, or apply what was found; then look whether the batch belongs to another domain.

        Raises:
            BundleError: the graph has no output `embedding`, by which domains are told apart.
        """
        if state.settled:
            scores = yield from self._score(state.search.mean[None], images)
            next_state, forwards = state, 1
        else:
            scores, next_state, forwards = yield from self._search(state, images)
        center = np.mean(scores.means, axis=0)
        next_state = replace(
            next_state, center=update_average(state.center, center, self.options.shift_decay)
        )
        observation = self._observe(state, scores.outputs)
        logits = scores.outputs.logits + self._compute_offset(state.center)
        if observation.changed:
            next_state = self._begin_domain(next_state)
        diagnostics = {
            "entropy": float(entropy(logits).mean()),
            "sigma": state.search.sigma,
            "settled": float(state.settled),
            "domain_changed": float(observation.changed),
            "bank": float(len(next_state.bank)),
        }
        next_state = replace(next_state, step=state.step + 1, domain=observation.domain)
        return Prediction(logits, forwards, scores.losses[scores.best], diagnostics), next_state

    def predict(self, state: PaceState, images: ImageArray) -> Requests[Prediction]:
        """Predict with the last batch's best point, or the mean of a settled search, and the shift."""
        point = state.search.mean if state.settled else state.best
        (outputs,) = yield Request(images, [self._build_tunables(point[None])[0]])
        logits = outputs.logits + self._compute_offset(state.center)
        return Prediction(logits, 1, diagnostics={"entropy": float(entropy(logits).mean())})

    def _search(self, state: PaceState, images: ImageArray) -> Requests[tuple[_Scores, PaceState, int]]:
        """Request one forward per candidate; return scores, the state with the new search, and forwards."""
        options, search = self.options, state.search
        if state.tries_bank:
            tried = np.vstack([state.bank, np.zeros((1, self.dimension))])
            bank_scores = yield from self._score(tried, images)
            order = np.argsort(bank_scores.losses, kind="stable")
            chosen = tried[order[: min(options.bank_choices, options.population)]]
            if options.restart == "best":
                search = replace(search, mean=chosen[0])
            drawn = cma.ask(search, state.seed, state.step, options.population)
            points, forwards = np.vstack([chosen, drawn[len(chosen) :]]), len(tried) + options.population
        else:
            drawn = cma.ask(search, state.seed, state.step, options.population)
            points, forwards = np.vstack([drawn, state.best]), options.population + 1
        scores = yield from self._score(points, images)
        told = cma.tell(search, points, np.asarray(scores.losses), options.population)
        next_state = replace(
            state,
            search=told,
            best=points[scores.best].copy(),
            settled=_has_settled(search.mean, told.mean, options.settle_below),
            tries_bank=False,
        )
        return scores, next_state, forwards

    def _score(self, points: FloatArray, images: ImageArray) -> Requests[_Scores]:
        """Request one forward per point `[C, p]`, two at a time, or more of a small batch."""
        at_once = max(2, 2 * REFERENCE_BATCH // max(1, len(images)))
        tunables = self._build_tunables(points)
        losses: list[float] = []
        means: list[FloatArray] = []
        best, best_outputs = 0, None
        for start in range(0, len(points), at_once):
            answers = yield Request(images, tunables[start : start + at_once])
            for outputs in answers:
                losses.append(self._compute_loss(outputs))
                means.append(outputs.features[:, -1].mean(axis=0, dtype=np.float64))
                if best_outputs is None or losses[-1] < losses[best]:  # of equals, the first is the best
                    best, best_outputs = len(losses) - 1, outputs
            del answers, outputs  # before the next ones are computed
        assert best_outputs is not None
        return _Scores(losses, means, best, best_outputs)

    def _build_tunables(self, points: FloatArray) -> list[dict[str, FloatArray]]:
        """Return what to feed for points `[C, p]`."""
        values = project(self.fastfood, points, self.layout.size).astype(np.float32)
        return [dict(self.layout.build_tunables(row)) for row in values]

    def _compute_loss(self, outputs: Outputs) -> float:
        options, widths = self.options, self.model.feature_widths
        weight, scale = options.discrepancy_weight, options.loss_scale
        return compute_outputs_loss(outputs, self.source, widths, weight, scale)

    def _observe(self, state: PaceState, outputs: Outputs) -> Observation:
        """Compare the batch with the domain, whose statistics stay as they are after the search."""
        if outputs.embedding is None:
            raise BundleError(
                f"{self.name} tells domains apart by the output embedding, and the graph of "
                f"{self.model.name} has none; export the model again"
            )
        rules = self.options.domain_rules
        return observe(state.domain, outputs.embedding, replace(rules, keep=1.0) if state.settled else rules)

    def _begin_domain(self, state: PaceState) -> PaceState:
        """Return a state that begins a domain, with the mean of the old one's search in the bank."""
        bank = np.vstack([state.bank, state.search.mean])
        if len(bank) > self.options.bank_limit:
            bank = np.delete(bank, _find_most_similar(bank), axis=0)
        return replace(
            state,
            search=self._start_search(),
            best=np.zeros(self.dimension),
            settled=False,
            tries_bank=True,
            bank=bank,
            center=None,
        )

    def _start_search(self) -> Search:
        return cma.start_search(self.dimension, self.options.sigma, self.options.covariance)

    def _compute_offset(self, center: FloatArray | None) -> FloatArray:
        return compute_shift_offset(self.model.head_weight, self.source, center, self.options.shift)


def _has_settled(before: FloatArray, after: FloatArray, limit: float) -> bool:
    """Return True if the mean moved by less than `limit` of its length; False if it was the origin."""
    length = float(np.linalg.norm(before))
    return bool(length) and float(np.linalg.norm(after - before)) / length < limit


def _find_most_similar(bank: FloatArray) -> int:
    """Return the entry of the largest mean cosine with the others, the first of several."""
    rows = bank / np.maximum(np.linalg.norm(bank, axis=1, keepdims=True), TINY)
    cosines = rows @ rows.T
    np.fill_diagonal(cosines, 0)
    return int(cosines.sum(axis=1).argmax())
