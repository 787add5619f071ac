"""ZOA: zeroth-order tuning of norms with a bank of what earlier domains taught (ACM MM 2025).

The defaults are the behaviour of the official code, but for two of its mistakes, which are options: after a
removal, similarities are those of the wrong entries (`similarity`), and batches below 64 images are never
checked for a new domain (`domain_small_batches`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, cast

import numpy as np

from ..errors import BundleError
from ..interface.method import Binding, Prediction, State, Step, optional_array, variable_length_array
from ..interface.method_options import option, validate
from ..interface.request import Request, Requests
from ..model import (
    NORMS,
    FloatArray,
    ImageArray,
    ModelInfo,
    Outputs,
    SourceStatistics,
)
from ..search import spsa
from ..search.bank import Bank, Similarity, compute_change, save
from ..search.gradient_steps import take_fresh_adamw_step, take_sgd_step
from ..search.norm_layout import NormLayout
from ..search.norm_selection import select_norms
from ..statistics.activation_shift import compute_logit_offset, compute_shift, update_average
from ..statistics.domain_detector import DomainEstimate, DomainRules, Observation, SmallBatches, observe
from ..statistics.feature_statistics import Moments
from ..statistics.objective import compute_discrepancy, entropy
from ..statistics.window import compute_window_moments, create_empty_window, slide_window


@dataclass(frozen=True)
class ZoaState(State):
    """Bank and domain, over the V values of the adapted norms.

    Attributes:
        bank: changes that earlier domains taught, and the residual of the current one.
        domain: running statistics by which a new domain is noticed.
        window: features of the last images, float32 `[W, L, F]`, W at most the option `window`.
        center: running mean of the last feature, float64 `[F]`, or None before the first batch of a domain.
    """

    bank: Bank
    domain: DomainEstimate
    window: FloatArray = variable_length_array()
    center: FloatArray | None = optional_array("feature_width")


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
        3, "number of last blocks whose norms stay frozen; fewer if none would be left to adapt", low=0
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
    domain_threshold: float = option(
        0.1,
        "distance of its embedding from the current domain above which a batch belongs to another one",
        low=0,
    )
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
    domain_hold_off: int = option(
        0, "number of checks after a change of domain in which no further change is reported", low=0
    )
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

    def bind(self, model: ModelInfo) -> BoundZoa:
        """Return the method bound to a model.

        Raises:
            BundleError: the bundle has no source statistics for this graph, or no norms that can be adapted.
        """
        source = model.require_source(self.name)
        model.require_tunable(NORMS, self.name)
        names = select_norms(model, self.first_block, self.frozen_last_blocks, self.name)
        return BoundZoa(self, model, source, NormLayout.of(model, names))

    @property
    def domain_rules(self) -> DomainRules:
        """The rules by which domains are told apart."""
        # Every forward of the official code updates the moving average with the same embedding.
        updates = self.forwards if self.domain_update == "twice" else 1
        return DomainRules(
            self.domain_threshold,
            self.domain_min_batch,
            self.domain_small_batches,
            self.domain_decay**updates,
            self.domain_hold_off,
        )


@dataclass(frozen=True, eq=False)
class BoundZoa(Binding[Zoa]):
    """ZOA on one model.

    Attributes:
        source: statistics of clean images.
        layout: positions of the adapted norms.
    """

    source: SourceStatistics
    layout: NormLayout

    def init(self, seed: int) -> ZoaState:
        """Return an unchanged network, an empty bank and no domain."""
        bank = Bank(
            coefficients=np.random.default_rng([seed, 0, 0]).standard_normal(1),
            entries=np.zeros((0, self.layout.size), np.float32),
            residual=np.zeros(self.layout.size, np.float32),
            similarity=np.zeros((0, 0)),
        )
        return ZoaState(
            step=0, seed=seed, bank=bank, domain=DomainEstimate(), window=create_empty_window(self.model)
        )

    def step(self, state: ZoaState, images: ImageArray) -> Step[ZoaState]:
        """Process one batch in the order of the official code (docs/specification.md §7.5).

        Raises:
            BundleError: the graph has no output `embedding`, by which domains are told apart.
        """
        options, bank = self.options, state.bank
        earlier_moments = compute_window_moments(state.window, len(images), options.window)
        (outputs,) = yield self._request(images, [bank])
        observation = self._observe_domain(state, outputs)
        center, window, offset = state.center, state.window, self._compute_offset(state.center)
        if observation.changed:
            # The effective change stays the same, so that the outputs are still those of this bank.
            bank = save(bank, self.layout.tensors, options.bank_limit, options.similarity)
            center, window, earlier_moments = None, create_empty_window(self.model), None
            if options.shift_on_change == "none":
                offset = np.zeros_like(offset)

        distance, loss = self._compute_loss(outputs, earlier_moments)
        bank = yield from self._update_bank(bank, loss, state, 0, images, earlier_moments)
        for update in range(1, options.updates):
            (unperturbed,) = yield self._request(images, [bank])
            update_loss = self._compute_loss(unperturbed, earlier_moments)[1]
            bank = yield from self._update_bank(bank, update_loss, state, update, images, earlier_moments)

        mean = outputs.features[:, -1].mean(axis=0, dtype=np.float64)
        logits = outputs.logits + offset
        diagnostics = {
            "entropy": float(entropy(logits).mean()),
            "discrepancy": distance,
            "domain_changed": float(observation.changed),
            "bank": float(len(bank.entries)),
            **({} if observation.distance is None else {"domain_distance": observation.distance}),
        }
        return Prediction(logits, options.forwards, loss, diagnostics), ZoaState(
            step=state.step + 1,
            seed=state.seed,
            bank=bank,
            domain=observation.domain,
            window=slide_window(window, outputs.features, options.window),
            center=update_average(center, mean, options.shift_decay),
        )

    def predict(self, state: ZoaState, images: ImageArray) -> Requests[Prediction]:
        """Predict with the current norms and shift."""
        (outputs,) = yield self._request(images, [state.bank])
        logits = outputs.logits + self._compute_offset(state.center)
        return Prediction(logits, 1, diagnostics={"entropy": float(entropy(logits).mean())})

    def _request(self, images: ImageArray, banks: Sequence[Bank]) -> Request:
        """Return the request for one forward per bank, with its effective change."""
        return Request(images, [self.layout.build_tunables(compute_change(bank)) for bank in banks])

    def _observe_domain(self, state: ZoaState, outputs: Outputs) -> Observation:
        if outputs.embedding is None:
            raise BundleError(
                f"{self.name} tells domains apart by the output embedding, and the graph of "
                f"{self.model.name} has none; export the model again"
            )
        return observe(state.domain, outputs.embedding, self.options.domain_rules)

    def _compute_loss(self, outputs: Outputs, earlier_moments: Moments | None) -> tuple[float, float]:
        """Return the distance to the source statistics, and the loss: λ times it plus the mean entropy.

        Args:
            outputs: of one forward.
            earlier_moments: moments of the window before this batch, or None.
        """
        moments = Moments.of(outputs.features).merge(earlier_moments)
        distance = compute_discrepancy(moments, self.source, "mean_squared", self.model.feature_widths)
        return distance, self.options.discrepancy_weight * distance + float(entropy(outputs.logits).mean())

    def _update_bank(
        self,
        bank: Bank,
        loss: float,
        state: ZoaState,
        update: int,
        images: ImageArray,
        earlier_moments: Moments | None,
    ) -> Requests[Bank]:
        """Return residual and coefficients after one update; `loss` is that of the bank as it is."""
        options, size = self.options, len(bank.residual)
        mixed = len(bank.coefficients) if len(bank.entries) else 0  # without entries there is nothing to mix
        directions = [
            spsa.draw_segmented_direction(state.seed, state.step, update * options.samples + j, size + mixed)
            for j in range(options.samples)
        ]
        differences = yield from self._measure_differences(bank, directions, loss, images, earlier_moments)
        pairs = list(zip(differences, directions, strict=True))
        slope = _average_quotients([(difference, z[:size]) for difference, z in pairs], options.perturbation)
        bank = replace(bank, residual=take_sgd_step(bank.residual, slope, options.rate, options.weight_decay))
        if not mixed:
            return bank
        slope = _average_quotients([(d, z[size:]) for d, z in pairs], options.mixture_perturbation)
        coefficients = take_fresh_adamw_step(
            bank.coefficients, slope, options.mixture_rate, options.mixture_decay
        )
        return replace(bank, coefficients=coefficients)

    def _measure_differences(
        self,
        bank: Bank,
        directions: Sequence[FloatArray],
        loss: float,
        images: ImageArray,
        earlier_moments: Moments | None,
    ) -> Requests[list[float]]:
        """Return the difference of the loss along each direction."""
        signs = (1, -1) if self.options.estimator == "two_sided" else (1,)
        perturbed = [self._perturb(bank, sign * z) for z in directions for sign in signs]
        answers = yield self._request(images, perturbed)
        losses = [self._compute_loss(outputs, earlier_moments)[1] for outputs in answers]
        if self.options.estimator == "two_sided":
            return [(plus - minus) / 2 for plus, minus in zip(losses[::2], losses[1::2], strict=True)]
        return [perturbed_loss - loss for perturbed_loss in losses]

    def _perturb(self, bank: Bank, direction: FloatArray) -> Bank:
        size = len(bank.residual)
        residual = bank.residual + np.float32(self.options.perturbation) * direction[:size]
        if len(direction) == size:
            return replace(bank, residual=residual)
        coefficients = bank.coefficients + self.options.mixture_perturbation * direction[size:]
        return replace(bank, residual=residual, coefficients=coefficients)

    def _compute_offset(self, center: FloatArray | None) -> FloatArray:
        """Return the logit offset of the activation shift, `[K]`."""
        if self.options.shift == "none":
            return compute_logit_offset(self.model.head_weight, None)
        last = self.source.mean[-1]
        target = np.full_like(last, last[-1]) if self.options.shift == "official_scalar" else last
        return compute_logit_offset(self.model.head_weight, compute_shift(target, center, 1.0))


def _average_quotients(pairs: list[tuple[float, FloatArray]], distance: float) -> FloatArray:
    slopes = [spsa.compute_quotients(difference, z, distance) for difference, z in pairs]
    return cast(FloatArray, np.mean(slopes, axis=0))
