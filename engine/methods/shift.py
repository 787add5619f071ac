"""Activation shift alone: centre the head's input with a running mean of the features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from ..interface.method import Prediction, State, late_array
from ..interface.options import option, validate
from ..model import FloatArray, Forward, ImageArray, ModelInfo, Outputs
from ..statistics.activation_shift import logit_offset, moving_average, shift_vector
from ..statistics.objective import entropy


@dataclass(frozen=True)
class ShiftState(State):
    """What the shift carries.

    Attributes:
        center: running mean of the last feature, float64 `[F]`, or None before the first batch.
        images: seen so far.
    """

    center: FloatArray | None = late_array("feature_width")
    images: int = 0


@dataclass(frozen=True)
class Shift:
    """Activation shift: FOA's (ICML 2024, official code) by default.

    NEO (ICLR 2026) is `target=origin`, `update=inclusive`, `average=global`. A batch of one image needs
    nothing special: the running mean takes care of it. Only, with `inclusive` the very first image is its own
    mean; it lands on the target, and its prediction says nothing. So do few images, or many of one class: a
    `warm_up` lets the shift grow with the images seen.
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
        0, "images after which the shift has half its strength; 0 is all of it from the first image on", low=0
    )

    def __post_init__(self) -> None:
        validate(self)

    @property
    def forwards(self) -> int:
        """Forwards that one step uses."""
        return 1

    def init(self, info: ModelInfo, seed: int) -> ShiftState:
        """Nothing seen yet.

        Raises:
            BundleError: the target is the source mean and the bundle has no source statistics.
        """
        self._target(info)
        return ShiftState(step=0, seed=seed)

    def step(self, state: ShiftState, images: ImageArray, network: Forward) -> tuple[Prediction, ShiftState]:
        """Predicts with shifted features, and takes the unshifted ones into the running mean."""
        outputs = network(images)
        mean = outputs.features[:, -1].mean(axis=0, dtype=np.float64)
        seen = state.images + len(images)
        decay = self.decay if self.average == "moving" else state.images / seen
        center = moving_average(state.center, mean, decay)
        used, counted = (center, seen) if self.update == "inclusive" else (state.center, state.images)
        prediction = self._shifted(outputs, used, counted, network.info)
        return prediction, ShiftState(state.step + 1, state.seed, center, seen)

    def predict(self, state: ShiftState, images: ImageArray, network: Forward) -> Prediction:
        """Predicts with features shifted by what the running mean is now."""
        return self._shifted(network(images), state.center, state.images, network.info)

    def _shifted(self, outputs: Outputs, center: FloatArray | None, seen: int, info: ModelInfo) -> Prediction:
        strength = seen / (seen + self.warm_up) if self.warm_up else 1.0
        shift = shift_vector(self._target(info), center, self.gain * strength)
        logits = outputs.logits + logit_offset(info.head_weight, shift)
        moved = 0.0 if shift is None else float(np.linalg.norm(shift))
        return Prediction(logits, 1, diagnostics={"entropy": float(entropy(logits).mean()), "shift": moved})

    def _target(self, info: ModelInfo) -> FloatArray | None:
        return None if self.target == "origin" else info.require_source("shift to the source mean").mean[-1]
