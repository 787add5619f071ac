"""Distance of a batch to the source; strength of adaptation and activation shift that follow from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..model import FloatArray, ModelInfo, SourceStatistics
from .activation_shift import compute_shift_offset
from .feature_statistics import Moments
from .objective import REFERENCE_BATCH, compute_discrepancy, estimate_chance_discrepancy

ShiftTarget = Literal["origin", "source_mean", "none"]
SMALLEST_CHANCE = 1e-12  # to divide by, where the source does not vary


@dataclass(frozen=True, eq=False)
class SourceAlignment:
    """Alignment of features with the source statistics of a model (docs/pizo.md).

    Attributes:
        model: the model.
        source: its source statistics.
        tolerance: distance to the source up to which nothing is adapted, as a multiple of that of clean
            images; full strength is reached at twice that; 0 always adapts at full strength.
        target: of the activation shift.
    """

    model: ModelInfo
    source: SourceStatistics
    tolerance: float
    target: ShiftTarget

    def measure(self, moments: Moments) -> tuple[float, float]:
        """Return the squared discrepancy of some features, and the strength of adaptation that follows."""
        distance = compute_discrepancy(moments, self.source)
        return distance, self.compute_strength(distance, moments.count)

    def compute_strength(self, distance: float, count: int) -> float:
        """Return a number from 0, features as near to the source as those of clean images, to 1.

        More than 64 images are treated as 64: even other clean images differ a little from those of the
        source statistics, and with many images that difference would exceed what chance explains.
        """
        if not self.tolerance:
            return 1.0
        chance = estimate_chance_discrepancy(self.source, min(count, REFERENCE_BATCH))
        return float(np.clip(distance / max(chance, SMALLEST_CHANCE) / self.tolerance - 1, 0, 1))

    def compute_offset(self, moments: Moments, strength: float) -> FloatArray:
        """Return the logit offset of the shift, `[K]`; it is smaller for few images, whose mean is noisy."""
        gain = min(1.0, moments.count / REFERENCE_BATCH) * strength
        center = moments.mean[-1]
        return compute_shift_offset(self.model.head_weight, self.source, center, self.target, gain)

    def shift_logits(self, logits: FloatArray, moments: Moments | None) -> FloatArray:
        """Return logits with the shift that follows from some features; unshifted where there are none."""
        if moments is None:
            return logits
        _, strength = self.measure(moments)
        return logits + self.compute_offset(moments, strength)
