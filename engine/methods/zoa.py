"""ZOA: zeroth-order tuning of norms with a bank of what earlier domains taught (ACM MM 2025).

The defaults are the behaviour of the official code, but for two of its mistakes, which are options: after a
removal, similarities are those of the wrong entries (`similarity`), and batches below 64 images are never
checked for a new domain (`domain_small_batches`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, cast

import numpy as np

from ..errors import BundleError
from ..interface.method import Prediction, State, growing_array, late_array
from ..interface.options import option, validate
from ..model import FloatArray, Forward, ImageArray, ModelInfo, Outputs, SourceStatistics, Tunables
from ..search import spsa
from ..search.adapted_norms import adapted_norms
from ..search.bank import Bank, Offsets, Similarity, effective, save
from ..statistics.activation_shift import logit_offset, moving_average, shift_vector
from ..statistics.domain_detector import Domain, DomainRules, Observation, SmallBatches, observe
from ..statistics.moments import Moments
from ..statistics.objective import discrepancy, entropy
from ..statistics.window import empty_window, slide, window_moments


@dataclass(frozen=True)
class ZoaState(State):
    """What ZOA carries: bank, residual and domain, over the V values of the adapted norms.

    Attributes:
        residual, coefficients, entries, similarity: as in `Bank`.
        domain: the statistics of `Domain`; its other attributes as there: pool, pool_images, hold_off.
        window: features of the last images, float32 `[W, L, F]`, W at most the option `window`.
        center: running mean of the last feature, float64 `[F]`, or None before the first batch of a domain.
    """

    residual: FloatArray
    pool_images: int
    hold_off: int
    coefficients: FloatArray = growing_array()
    entries: FloatArray = growing_array()
    similarity: FloatArray = growing_array(free=2)
    domain: FloatArray = growing_array(free=2)
    pool: FloatArray = growing_array(free=2)
    window: FloatArray = growing_array()
    center: FloatArray | None = late_array("feature_width")


@dataclass(frozen=True)
class Zoa:
    """ZOA as released; where paper, code and good sense differ, there is an option.

    Small and ragged batches: losses are means, so that the size of a batch has no influence on their scale. A
    batch of one image has no standard deviation, and only its mean enters the discrepancy; `window` cures
    that. The window is emptied when the domain changes.
    """

    name: ClassVar[str] = "zoa"

    first_block: int = option(1, "first block whose norms are adapted, counted from 0", low=0)
    frozen_last_blocks: int = option(
        3, "last blocks whose norms stay as they are; fewer, if else there were none to adapt", low=0
    )
    samples: int = option(1, "SPSA samples per update", low=1)
    estimator: Literal["one_sided", "two_sided"] = option(
        "one_sided", "one perturbed forward per sample, or two, which is more accurate"
    )
    updates: int = option(1, "updates per batch, each with an unperturbed forward of its own", low=1)
    discrepancy_weight: float = option(30.0, "λ, weight of the distance to the source statistics", low=0)
    rate: float = option(5e-4, "learning rate of the residual", low=0)
    perturbation: float = option(0.02, "c, size of the perturbation of the residual", low=0)
    weight_decay: float = option(0.4, "L2 weight decay of the residual", low=0)
    mixture_rate: float = option(0.01, "step of each coefficient of the bank", low=0)
    mixture_perturbation: float = option(0.05, "size of the perturbation of the coefficients", low=0)
    mixture_decay: float = option(0.1, "decoupled weight decay of the coefficients", low=0)
    bank_limit: int = option(32, "domains in the bank at most", low=1)
    similarity: Similarity = option(
        "compacted",
        "similarities after a removal from the bank: of the entries that remain, or shifted against them"
        " (official code)",
    )
    domain_threshold: float = option(0.1, "distance of two batches' embeddings between domains", low=0)
    domain_min_batch: int = option(64, "images that a check for a new domain needs", low=1)
    domain_small_batches: SmallBatches = option(
        "accumulate", "smaller batches: checked together once they are enough, or not at all (official code)"
    )
    domain_update: Literal["twice", "once"] = option(
        "twice", "moving average of the domain: updated by every forward, as released, or by every batch"
    )
    domain_decay: float = option(
        0.8, "share of the old domain statistics that one update keeps", low=0, high=1
    )
    domain_hold_off: int = option(0, "checks after a change of domain that report no other", low=0)
    shift: Literal["source_mean", "official_scalar", "none"] = option(
        "source_mean",
        "activation shift: towards the source mean, towards its last entry in all places (official code for"
        " ResNet-50), or none",
    )
    shift_on_change: Literal["stale", "none"] = option(
        "stale",
        "shift of the batch on which the domain changed: that of the old one (official code), or none",
    )
    shift_decay: float = option(0.9, "share of the old running mean that is kept", low=0, high=1)
    window: int = option(
        0, "images in the statistics: earlier ones join those of a smaller batch; 0 is the batch alone", low=0
    )

    def __post_init__(self) -> None:
        validate(self)

    @property
    def forwards(self) -> int:
        """Forwards that one step uses."""
        return self.updates * (1 + self.samples * (2 if self.estimator == "two_sided" else 1))

    def init(self, info: ModelInfo, seed: int) -> ZoaState:
        """No change of the norms, an empty bank, no domain.

        Raises:
            BundleError: the bundle has no source statistics for this graph, or no norms that can be adapted.
        """
        info.require_source(self.name)
        info.require_tunable("norms", self.name)
        size = self._norms(info).size
        return ZoaState(
            step=0,
            seed=seed,
            coefficients=np.random.default_rng([seed, 0, 0]).standard_normal(1),
            entries=np.zeros((0, size), np.float32),
            residual=np.zeros(size, np.float32),
            similarity=np.zeros((0, 0)),
            domain=Domain().statistics,
            pool=Domain().pool,
            pool_images=0,
            hold_off=0,
            window=empty_window(info),
        )

    def step(self, state: ZoaState, images: ImageArray, network: Forward) -> tuple[Prediction, ZoaState]:
        """One batch in the order of the official code (docs/methods.md).

        Raises:
            BundleError: the graph has no output `embedding`, by which domains are told apart.
        """
        info, norms = network.info, self._norms(network.info)
        source = info.require_source(self.name)
        past = window_moments(state.window, len(images), self.window)
        batch = _Batch(network, images, norms, self.discrepancy_weight, past)
        bank = Bank(state.coefficients, state.entries, state.residual, state.similarity)
        outputs = batch.forward(bank)
        seen = self._observe(state, outputs, info)
        center, window = state.center, state.window
        offset = logit_offset(info.head_weight, self._shift(center, source))
        if seen.changed:
            # The change in force is the same afterwards, so that the outputs are still those of this bank.
            bank = save(bank, norms.tensors, self.bank_limit, self.similarity)
            center, window, batch = None, empty_window(info), replace(batch, past=None)
            if self.shift_on_change == "none":
                offset = np.zeros_like(offset)

        distance, loss = batch.loss(outputs)
        bank = self._updated(bank, loss, batch, state, 0)
        for update in range(1, self.updates):
            bank = self._updated(bank, batch.loss(batch.forward(bank))[1], batch, state, update)

        mean = outputs.features[:, -1].mean(axis=0, dtype=np.float64)
        logits = outputs.logits + offset
        diagnostics = {
            "entropy": float(entropy(logits).mean()),
            "discrepancy": distance,
            "domain_changed": float(seen.changed),
            "bank": float(len(bank.entries)),
            **({} if seen.distance is None else {"domain_distance": seen.distance}),
        }
        return Prediction(logits, self.forwards, loss, diagnostics), ZoaState(
            step=state.step + 1,
            seed=state.seed,
            coefficients=bank.coefficients,
            entries=bank.entries,
            residual=bank.residual,
            similarity=bank.similarity,
            domain=seen.domain.statistics,
            pool=seen.domain.pool,
            pool_images=seen.domain.pool_images,
            hold_off=seen.domain.hold_off,
            window=slide(window, outputs.features, self.window),
            center=moving_average(center, mean, self.shift_decay),
        )

    def predict(self, state: ZoaState, images: ImageArray, network: Forward) -> Prediction:
        """Predicts with the norms and the shift as they are."""
        info = network.info
        bank = Bank(state.coefficients, state.entries, state.residual, state.similarity)
        outputs = network(images, **self._norms(info).tunables(effective(bank)))
        shift = self._shift(state.center, info.require_source(self.name))
        logits = outputs.logits + logit_offset(info.head_weight, shift)
        return Prediction(logits, 1, diagnostics={"entropy": float(entropy(logits).mean())})

    def _observe(self, state: ZoaState, outputs: Outputs, info: ModelInfo) -> Observation:
        if outputs.embedding is None:
            raise BundleError(
                f"{self.name} tells domains apart by the output embedding, and the graph of {info.name} has "
                "none; export the model again"
            )
        # Every forward of the official code takes the same embedding into the moving average.
        updates = self.forwards if self.domain_update == "twice" else 1
        rules = DomainRules(
            self.domain_threshold,
            self.domain_min_batch,
            self.domain_small_batches,
            self.domain_decay**updates,
            self.domain_hold_off,
        )
        domain = Domain(state.domain, state.pool, state.pool_images, state.hold_off)
        return observe(domain, outputs.embedding, rules)

    def _updated(self, bank: Bank, loss: float, batch: _Batch, state: ZoaState, update: int) -> Bank:
        """Residual and coefficients after one update; `loss` is that of the bank as it is."""
        size = len(bank.residual)
        mixed = len(bank.coefficients) if len(bank.entries) else 0  # without entries there is nothing to mix
        directions = [
            spsa.segmented_direction(state.seed, state.step, update * self.samples + j, size + mixed)
            for j in range(self.samples)
        ]
        signs = (1, -1) if self.estimator == "two_sided" else (1,)
        losses = batch.losses([self._perturbed(bank, sign * z) for z in directions for sign in signs])
        if self.estimator == "two_sided":
            differences = [(plus - minus) / 2 for plus, minus in zip(losses[::2], losses[1::2], strict=True)]
        else:
            differences = [perturbed - loss for perturbed in losses]
        pairs = list(zip(differences, directions, strict=True))
        slope = _mean_quotient([(each, z[:size]) for each, z in pairs], self.perturbation)
        bank = replace(bank, residual=sgd_step(bank.residual, slope, self.rate, self.weight_decay))
        if not mixed:
            return bank
        slope = _mean_quotient([(each, z[size:]) for each, z in pairs], self.mixture_perturbation)
        coefficients = fresh_adamw_step(bank.coefficients, slope, self.mixture_rate, self.mixture_decay)
        return replace(bank, coefficients=coefficients)

    def _perturbed(self, bank: Bank, direction: FloatArray) -> Bank:
        size = len(bank.residual)
        residual = bank.residual + np.float32(self.perturbation) * direction[:size]
        if len(direction) == size:
            return replace(bank, residual=residual)
        coefficients = bank.coefficients + self.mixture_perturbation * direction[size:]
        return replace(bank, residual=residual, coefficients=coefficients)

    def _shift(self, center: FloatArray | None, source: SourceStatistics) -> FloatArray | None:
        if self.shift == "none":
            return None
        last = source.mean[-1]
        target = np.full_like(last, last[-1]) if self.shift == "official_scalar" else last
        return shift_vector(target, center, 1.0)

    def _norms(self, info: ModelInfo) -> _AdaptedNorms:
        return _AdaptedNorms(info, adapted_norms(info, self.first_block, self.frozen_last_blocks, self.name))


class _AdaptedNorms:
    """Where the adapted values, one after the other without padding, belong in the tunable `norms`.

    Attributes:
        size: V, the number of adapted values: gain and bias of each norm, in the order of the graph's input.
        tensors: where each gain and each bias begins, `[2 norms]`.
    """

    def __init__(self, info: ModelInfo, names: tuple[str, ...]) -> None:
        rows = {name: row for row, name in enumerate(info.norms)}
        self._places = [(rows[name], info.norms[name]) for name in names]
        self._shape = (1, len(rows), 2, max(info.norms.values()))
        widths = np.repeat([width for _, width in self._places], 2)
        ends = np.cumsum(widths)
        self.size = int(ends[-1])
        self.tensors: Offsets = ends - widths
        # A network with batch norms is adapted as one that normalises with the statistics of the batch.
        self._fixed: Tunables = (
            {"batch_statistics": np.ones(1, np.float32)} if "batch_statistics" in info.tunables else {}
        )

    def tunables(self, values: FloatArray) -> Tunables:
        """What the network is fed: `values` float32 `[V]` in `norms` `[1, M, 2, W]`, zeros elsewhere."""
        norms = np.zeros(self._shape, np.float32)
        start = 0
        for row, width in self._places:
            norms[0, row, :, :width] = values[start : start + 2 * width].reshape(2, width)
            start += 2 * width
        return {"norms": norms, **self._fixed}


@dataclass(frozen=True)
class _Batch:
    """A batch of images, on which banks are compared.

    Attributes:
        network: what runs the forwards.
        images: the batch.
        norms: where a bank's values belong.
        weight: λ.
        past: moments of the window before this batch, or None.
    """

    network: Forward
    images: ImageArray
    norms: _AdaptedNorms
    weight: float
    past: Moments | None

    def forward(self, bank: Bank) -> Outputs:
        """One forward with the change in force."""
        return self.network(self.images, **self.norms.tunables(effective(bank)))

    def losses(self, banks: list[Bank]) -> list[float]:
        """The loss of each; one forward each."""
        moved = [self.norms.tunables(effective(bank)) for bank in banks]
        return [self.loss(outputs)[1] for outputs in self.network.candidates(self.images, moved)]

    def loss(self, outputs: Outputs) -> tuple[float, float]:
        """The distance to the source statistics, and the loss: λ times that plus the mean entropy."""
        info = self.network.info
        moments = Moments.of(outputs.features).merge(self.past)
        distance = discrepancy(moments, info.require_source("zoa"), "mean_squared", info.feature_widths)
        return distance, self.weight * distance + float(entropy(outputs.logits).mean())


def _mean_quotient(pairs: list[tuple[float, FloatArray]], distance: float) -> FloatArray:
    slopes = [spsa.quotients(difference, z, distance) for difference, z in pairs]
    return cast(FloatArray, np.mean(slopes, axis=0))


def sgd_step(values: FloatArray, gradient: FloatArray, rate: float, decay: float) -> FloatArray:
    """Plain gradient descent with L2 weight decay; a new float32 array of the shape of `values`."""
    return (values - rate * (gradient + decay * values)).astype(np.float32)


def fresh_adamw_step(values: FloatArray, gradient: FloatArray, rate: float, decay: float) -> FloatArray:
    """AdamW without a past, as when its state is cleared after every step: nearly a step of the sign.

    Args:
        values: float64, any shape; a new array results.
        gradient: of the same shape.
        rate: the learning rate.
        decay: decoupled weight decay.
    """
    return values * (1 - rate * decay) - rate * gradient / (np.abs(gradient) + 1e-8)
