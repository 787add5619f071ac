"""CAZO: zeroth-order directions scaled by a running diagonal curvature (CVPR 2026, arXiv 2608.12279).

Formulas and values were read in the official code. That code tunes an adapter of 5,378 values in block 3;
this file tunes gains and biases of norms, which existing graphs take as an input. Its published figures are
those of the adapter, so none of them can be compared with this file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from ..interface.method import Binding, Prediction, State, Step, optional_array
from ..interface.method_options import option, validate
from ..interface.request import Request, Requests
from ..model import NORMS, FloatArray, ImageArray, ModelInfo, Outputs, SourceStatistics
from ..search.gradient_steps import compute_rms
from ..search.spsa import compute_directional_slope, draw_gaussian_direction
from ..search.tuned_norms import TunedNorms
from ..statistics.activation_shift import compute_shift_offset, update_average
from ..statistics.objective import LossScale, compute_outputs_loss, entropy

SMALLEST_CURVATURE = 1e-12  # to divide by


@dataclass(frozen=True)
class CazoState(State):
    """Tuned norms and their curvature.

    Attributes:
        norms: θ, addends to gain and bias, float32 `[T, 2, D]`.
        curvature: D, running mean of the squared gradient, float64 `[T, 2, D]`.
        center: running mean of the last feature, float64 `[F]`, or None before the first batch.
        updates: number of gradients so far.
    """

    norms: FloatArray
    curvature: FloatArray
    center: FloatArray | None = optional_array("feature_width")
    updates: int = 0


@dataclass(frozen=True)
class Cazo:
    """CAZO's directions on gains and biases of norms; FOA's loss and activation shift; unverified.

    Directions are normal, divided by the root of the curvature: short where gradients were large. Small
    batches: the released loss is a sum over images, so a smaller batch takes a smaller step;
    `loss_scale=per_image` removes that. A batch of one image has no standard deviation, and only its mean
    enters the discrepancy.
    """

    name: ClassVar[str] = "cazo"

    first_block: int = option(1, "first block whose norms are tuned, from 0", low=0)
    frozen_last_blocks: int = option(
        3, "number of last blocks whose norms stay frozen; fewer if none would be left to adapt", low=0
    )
    pairs: int = option(20, "k, pairs of forwards per batch, each with a direction of its own", low=1)
    perturbation: float = option(0.1, "ε", low=0)
    rate: float = option(0.01, "η", low=0)
    step_rule: Literal["official", "plain"] = option(
        "official", "length of a step: ε η times the gradient (official code), or η times it"
    )
    curvature_share: float = option(
        0.8, "ν, share of the new squared gradient in the curvature", low=0, high=1
    )
    first_curvature: float = option(
        100.0, "D at the start; 1 in the official code, with which the first step ruins norms", low=1e-6
    )
    bias_correction: Literal["official", "none"] = option(
        "official",
        "curvature divided by 1 − (1 − ν)^t as if it had begun at 0 (official code), or as it is",
    )
    discrepancy_weight: float = option(0.4, "λ, weight of the distance to the source statistics", low=0)
    loss_scale: LossScale = option(
        "sum", "sum over the batch as released, or per image, scaled to a batch of 64"
    )
    shift: Literal["source_mean", "origin", "none"] = option(
        "source_mean",
        "activation shift: features are centred at the source mean, at the origin, or not at all",
    )
    shift_decay: float = option(0.9, "share of the old running mean that is kept", low=0, high=1)

    def __post_init__(self) -> None:
        validate(self)

    @property
    def forwards(self) -> int:
        """Forwards that one step uses."""
        return 2 * self.pairs + 1

    def bind(self, model: ModelInfo) -> BoundCazo:
        """Return the method bound to a model.

        Raises:
            BundleError: the bundle has no source statistics for this graph, or no norms to tune, or the
                network normalises over the batch.
        """
        model.require_separate_images(self.name)
        source = model.require_source(self.name)
        model.require_tunable(NORMS, self.name)
        norms = TunedNorms.select(model, self.first_block, self.frozen_last_blocks, self.name)
        return BoundCazo(self, model, source, norms)


@dataclass(frozen=True, eq=False)
class BoundCazo(Binding[Cazo]):
    """CAZO on one model.

    Attributes:
        source: statistics of clean images.
        norms: that are tuned.
    """

    source: SourceStatistics
    norms: TunedNorms

    def init(self, seed: int) -> CazoState:
        """Return unchanged norms and the curvature of the start."""
        zeros = self.norms.create_zeros()
        return CazoState(0, seed, zeros.astype(np.float32), zeros + self.options.first_curvature)

    def step(self, state: CazoState, images: ImageArray) -> Step[CazoState]:
        """Take a step along the mean of the pairs, and predict with the result: one more forward."""
        options = self.options
        gradient, means, loss = yield from self._estimate_gradient(state, images)
        length = options.rate * (options.perturbation if options.step_rule == "official" else 1)
        norms = (state.norms - length * gradient).astype(np.float32)
        curvature = state.curvature
        if state.updates:  # the first gradient has no part in it, as released
            share = options.curvature_share
            curvature = (1 - share) * curvature + share * np.square(gradient)
        (outputs,) = yield Request(images, [self.norms.build_tunables(norms)])
        logits = outputs.logits + self._compute_offset(state.center)
        diagnostics = {
            "entropy": float(entropy(logits).mean()),
            "gradient": compute_rms(gradient),
            "curvature": float(curvature.mean()),
            "size": compute_rms(norms),
        }
        center = update_average(state.center, np.mean(means, axis=0), options.shift_decay)
        next_state = CazoState(state.step + 1, state.seed, norms, curvature, center, state.updates + 1)
        return Prediction(logits, options.forwards, loss, diagnostics), next_state

    def predict(self, state: CazoState, images: ImageArray) -> Requests[Prediction]:
        """Predict with the current norms and shift."""
        (outputs,) = yield Request(images, [self.norms.build_tunables(state.norms)])
        logits = outputs.logits + self._compute_offset(state.center)
        return Prediction(logits, 1, diagnostics={"entropy": float(entropy(logits).mean())})

    def _estimate_gradient(
        self, state: CazoState, images: ImageArray
    ) -> Requests[tuple[FloatArray, list[FloatArray], float]]:
        """Request all pairs; return the gradient `[T, 2, D]`, the 2k mean features, and the mean loss."""
        options = self.options
        deviation = 1 / np.sqrt(np.maximum(self._correct_curvature(state), SMALLEST_CURVATURE))
        gradient, means, losses = np.zeros(state.norms.shape), [], []
        for index in range(options.pairs):
            direction = deviation * draw_gaussian_direction(state.seed, state.step, index, state.norms.shape)
            move = options.perturbation * direction
            points = [self.norms.build_tunables(state.norms + sign * move) for sign in (1, -1)]
            pair = yield Request(images, points)
            measured = [self._compute_loss(outputs) for outputs in pair]
            slope = compute_directional_slope(measured[0], measured[1], options.perturbation)
            gradient += slope * direction / options.pairs
            losses += measured
            means += [outputs.features[:, -1].mean(axis=0, dtype=np.float64) for outputs in pair]
        return gradient, means, float(np.mean(losses))

    def _correct_curvature(self, state: CazoState) -> FloatArray:
        remainder = (1 - self.options.curvature_share) ** state.updates
        if not state.updates or self.options.bias_correction == "none" or remainder == 1:
            return state.curvature
        return state.curvature / (1 - remainder)

    def _compute_loss(self, outputs: Outputs) -> float:
        options, widths = self.options, self.model.feature_widths
        weight, scale = options.discrepancy_weight, options.loss_scale
        return compute_outputs_loss(outputs, self.source, widths, weight, scale)

    def _compute_offset(self, center: FloatArray | None) -> FloatArray:
        return compute_shift_offset(self.model.head_weight, self.source, center, self.options.shift)
