"""Activation shift alone: centre the head's input with a running mean of the features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from ..interface.method import Binding, Prediction, State, Step, optional_array
from ..interface.method_options import option, validate
from ..interface.request import Request, Requests
from ..model import FloatArray, ImageArray, ModelInfo, Outputs
from ..statistics.activation_shift import compute_logit_offset, compute_shift, update_average
from ..statistics.objective import entropy


@dataclass(frozen=True)
class ShiftState(State):
    """Running mean of the features.

    Attributes:
        center: running mean of the last feature, float64 `[F]`, or None before the first batch.
        images: number of images in it.
    """

    center: FloatArray | None = optional_array("feature_width")
    images: int = 0


@dataclass(frozen=True)
class Shift:
    """Activation shift: FOA's (ICML 2024, official code) by default.

    NEO (ICLR 2026) is `target=origin`, `update=inclusive`, `average=global`. A batch of one image needs
    no special care, because the mean is a running one. But with `inclusive`, the very first image is its own
    mean: it is moved onto the target, and its prediction is meaningless. Few images, or many of one class,
    are nearly as bad; with `warm_up` the shift grows with the number of images.
    """

    name: ClassVar[str] = "shift"

    target: Literal["source_mean", "origin"] = option(
        "source_mean", "where the features are centred: at the source mean (FOA) or at the origin (NEO)"
    )
    update: Literal["lagged", "inclusive"] = option(
        "lagged", "whether the running mean includes the batch that is predicted"
    )
    average: Literal["moving", "global"] = option(
        "moving",
        "the running mean: exponential over batches (FOA), or over all images seen, equally (NEO)",
    )
    decay: float = option(0.9, "share of the old running mean that is kept, if it is moving", low=0, high=1)
    gain: float = option(1.0, "how far the features are moved; 1 is all the way", low=0)
    warm_up: int = option(
        0, "images after which the shift has half its strength; 0 is full strength from the start", low=0
    )

    def __post_init__(self) -> None:
        validate(self)

    @property
    def forwards(self) -> int:
        """Forwards that one step uses."""
        return 1

    def bind(self, model: ModelInfo) -> BoundShift:
        """Return the method bound to a model.

        Raises:
            BundleError: the target is the source mean and the bundle has no source statistics.
        """
        if self.target == "origin":
            return BoundShift(self, model, None)
        return BoundShift(self, model, model.require_source("shift to the source mean").mean[-1])


@dataclass(frozen=True, eq=False)
class BoundShift(Binding[Shift]):
    """The activation shift of one model.

    Attributes:
        target: where the features are centred, `[F]`; None stands for the origin.
    """

    target: FloatArray | None

    def init(self, seed: int) -> ShiftState:
        """Return a state without a running mean."""
        return ShiftState(step=0, seed=seed)

    def step(self, state: ShiftState, images: ImageArray) -> Step[ShiftState]:
        """Predict with shifted features, and add the unshifted ones to the running mean."""
        options = self.options
        (outputs,) = yield Request(images)
        mean = outputs.features[:, -1].mean(axis=0, dtype=np.float64)
        image_count = state.images + len(images)
        decay = options.decay if options.average == "moving" else state.images / image_count
        center = update_average(state.center, mean, decay)
        next_state = ShiftState(state.step + 1, state.seed, center, image_count)
        return self._predict(outputs, next_state if options.update == "inclusive" else state), next_state

    def predict(self, state: ShiftState, images: ImageArray) -> Requests[Prediction]:
        """Predict with features shifted by the current running mean."""
        (outputs,) = yield Request(images)
        return self._predict(outputs, state)

    def _predict(self, outputs: Outputs, state: ShiftState) -> Prediction:
        warm_up = self.options.warm_up
        strength = state.images / (state.images + warm_up) if warm_up else 1.0
        shift = compute_shift(self.target, state.center, self.options.gain * strength)
        logits = outputs.logits + compute_logit_offset(self.model.head_weight, shift)
        length = 0.0 if shift is None else float(np.linalg.norm(shift))
        return Prediction(logits, 1, diagnostics={"entropy": float(entropy(logits).mean()), "shift": length})
