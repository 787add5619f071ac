"""SAR (ICLR 2023): sharpness-aware descent of the entropy of reliable predictions. Not forward-only."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ..interface.method import Prediction, Step
from ..interface.method_options import option
from ..interface.request import Request, Requests
from ..model import FloatArray, ImageArray, ModelInfo, Slopes
from ..statistics.objective import entropy
from ..statistics.output_slopes import derive_entropy
from .norm_descent import DescentState, NormDescent, NormDescentBinding

TINY = 1e-12  # added to the norm of the gradient (official code)
AVERAGE_DECAY = 0.9


@dataclass(frozen=True)
class SarState(DescentState):
    """Tuned norms.

    Attributes:
        average: running average of the loss at the perturbed norms; None before the first loss.
    """

    average: float | None = None


@dataclass(frozen=True)
class Sar(NormDescent):
    """SAR, as released: two pull-backs per batch, at the norms and at their worst point nearby.

    Only images whose entropy is below a margin count, and gradients are computed only where there are some.
    When the average loss falls so low that the model has collapsed, the norms are reset.
    """

    name: ClassVar[str] = "sar"

    first_block: int = option(0, "first block whose norms are tuned, from 0 (the paper says 1)", low=0)
    frozen_last_blocks: int = option(3, "blocks at the end whose norms are not tuned", low=0)
    radius: float = option(0.05, "ρ, distance to the point at which the gradient is taken", low=0)
    margin: float = option(0.4, "entropy below which an image counts, as a share of ln K", low=0, high=1)
    reset_below: float = option(0.2, "average loss below which the norms are reset; 0: never", low=0)
    forget_average: bool = option(
        False, "forget the average loss at a reset too; the official code keeps it, and may reset again"
    )

    @property
    def forwards(self) -> int:
        """Forwards that one step uses."""
        return 2

    @property
    def pull_backs(self) -> int:
        """Computations of exact gradients that one step uses."""
        return 2

    def bind(self, model: ModelInfo) -> BoundSar:
        """Return the method bound to a model.

        Raises:
            BundleError: the bundle lacks tunable norms or a pull-back graph.
        """
        return BoundSar(self, model, self.select_norms(model))


@dataclass(frozen=True, eq=False)
class _WorstPoint:
    """The worst point near the norms.

    Attributes:
        gradient: of the loss there, float64 `[T, 2, D]`; zeros where no image counts.
        loss: mean entropy of the images that count there; None where none does.
        forwards, pull_backs: used so far, those of the prediction included.
    """

    gradient: FloatArray
    loss: float | None
    forwards: int
    pull_backs: int


@dataclass(frozen=True, eq=False)
class BoundSar(NormDescentBinding[Sar]):
    """SAR on one model."""

    def init(self, seed: int) -> SarState:
        """Return unchanged norms; nothing is random."""
        return SarState(0, seed, self.norms.create_zeros(np.float32), self.norms.create_zeros())

    def step(self, state: SarState, images: ImageArray) -> Step[SarState]:
        """Predict, then descend along the gradient at the worst point near the current norms."""
        (outputs,) = yield Request(images, [self.norms.build_tunables(state.norms)])
        logits = outputs.logits
        reliable = entropy(logits) < self._margin
        point = yield from self._probe_nearby(state, images, logits, reliable)
        next_state = replace(
            self.descend(state, point.gradient),
            step=state.step + 1,
            average=_update_average(state.average, point.loss),
        )
        diagnostics = {
            "entropy": float(entropy(logits).mean()),
            "reliable": float(reliable.mean()),
            **({} if next_state.average is None else {"average_loss": next_state.average}),
        }
        prediction = Prediction(logits, point.forwards, point.loss, diagnostics, pull_backs=point.pull_backs)
        return prediction, self._reset_if_collapsed(next_state)

    def _probe_nearby(
        self, state: SarState, images: ImageArray, logits: FloatArray, reliable: NDArray[np.bool_]
    ) -> Requests[_WorstPoint]:
        """Request the gradient at the worst point near the norms; nothing where no image is reliable."""
        zeros = self.norms.create_zeros()
        if not reliable.any():
            return _WorstPoint(zeros, None, forwards=1, pull_backs=0)
        gradient = yield from self._pull_back_mean(state.norms, images, logits, reliable)
        distance = self.options.radius / (float(np.linalg.norm(gradient)) + TINY)
        perturbed = (state.norms + distance * gradient).astype(np.float32)
        (outputs,) = yield Request(images, [self.norms.build_tunables(perturbed)])
        losses = entropy(outputs.logits)
        still_reliable = reliable & (losses < self._margin)
        if not still_reliable.any():
            return _WorstPoint(zeros, None, forwards=2, pull_backs=1)
        gradient = yield from self._pull_back_mean(perturbed, images, outputs.logits, still_reliable)
        return _WorstPoint(gradient, float(losses[still_reliable].mean()), forwards=2, pull_backs=2)

    @property
    def _margin(self) -> float:
        return self.options.margin * math.log(self.model.classes)

    def _pull_back_mean(
        self, norms: FloatArray, images: ImageArray, logits: FloatArray, counted: NDArray[np.bool_]
    ) -> Requests[FloatArray]:
        """Return the gradient of the mean entropy of the counted images."""
        weights = counted / counted.sum()
        return self.pull_back(norms, images, Slopes(weights[:, None] * derive_entropy(logits)))

    def _reset_if_collapsed(self, state: SarState) -> SarState:
        if state.average is None or state.average >= self.options.reset_below:
            return state
        return replace(
            state,
            norms=np.zeros_like(state.norms),
            velocity=np.zeros_like(state.velocity),
            average=None if self.options.forget_average else state.average,
        )


def _update_average(average: float | None, loss: float | None) -> float | None:
    if average is None or loss is None:
        return average if loss is None else loss
    return AVERAGE_DECAY * average + (1 - AVERAGE_DECAY) * loss
