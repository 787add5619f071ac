"""A memory of the most confident features of each class, with a fixed number of slots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..model import FloatArray, ModelInfo

TINY_NORM = 1e-12


@dataclass(frozen=True)
class ClassMemory:
    """Features by predicted class; slots that are not in use hold zeros.

    Attributes:
        features: of length 1, float32 `[K, S, E]`.
        entropies: of the predictions for them, in nats, float64 `[K, S]`.
        counts: slots in use of each class, the first ones, int64 `[K]`.
    """

    features: FloatArray
    entropies: FloatArray
    counts: NDArray[np.int64]

    @classmethod
    def create_empty(cls, classes: int, slots: int, width: int, dtype: DTypeLike = np.float32) -> ClassMemory:
        """Return a memory without features."""
        return cls(
            np.zeros((classes, slots, width), dtype),
            np.zeros((classes, slots)),
            np.zeros(classes, np.int64),
        )

    @property
    def used(self) -> NDArray[np.bool_]:
        """Mask of the slots in use, `[K, S]`."""
        used: NDArray[np.bool_] = np.arange(self.entropies.shape[1]) < self.counts[:, None]
        return used

    def copy(self) -> ClassMemory:
        """Return a memory that `store` may change."""
        return ClassMemory(self.features.copy(), self.entropies.copy(), self.counts.copy())

    def find_slot(self, label: int, entropy: float) -> int | None:
        """Return the slot for a feature; None if the class is full of more confident ones.

        It is a free one, or that of the highest entropy if the feature's is lower; of equal ones the first.

        Args:
            label: the predicted class.
            entropy: of the prediction, in nats.
        """
        count, slots = int(self.counts[label]), self.entropies.shape[1]
        if count < slots:
            return count
        slot = int(self.entropies[label].argmax()) if slots else 0
        return slot if slots and entropy < self.entropies[label, slot] else None

    def store(self, label: int, slot: int, feature: FloatArray, entropy: float) -> None:
        """Put a feature of length 1, `[E]`, into the slot that `find_slot` returned; changes this memory."""
        self.features[label, slot], self.entropies[label, slot] = feature, entropy
        self.counts[label] = max(int(self.counts[label]), slot + 1)


def read_width(model: ModelInfo) -> int:
    """Return the width of a model's last feature, without padding."""
    return model.feature_widths[-1] if model.feature_widths else model.feature_width


def normalise_features(features: FloatArray, width: int) -> FloatArray:
    """Return features without padding, scaled to length 1, `[N, width]`; zeros stay zeros.

    Args:
        features: what the head reads, or rows of the head, `[N, F]`.
        width: coordinates that are no padding.
    """
    rows = features[:, :width].astype(np.float64)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), TINY_NORM)
    return cast(FloatArray, rows)
