"""Accuracy, likelihood and calibration, accumulated batch by batch in constant memory."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ...engine.model import FloatArray
from ...engine.statistics.objective import log_softmax
from .class_counts import ClassCounts

ECE_BINS = 15
_EDGES = np.linspace(0, 1, ECE_BINS + 1)


def _create_bins() -> NDArray[np.float64]:
    return np.zeros(ECE_BINS)


@dataclass
class Tally:
    """Raw counts of a stream, from which every metric follows.

    Attributes:
        images: images counted.
        top1: images whose largest logit is the label's.
        top5: images whose label is among the five largest logits (fewer classes: among all).
        nll: sum of the labels' negative log-probabilities, in nats.
        bin_images, bin_confidence, bin_correct: `[15]`, per confidence bin: number of images, sum of
            confidences, number of correct ones. A confidence on an edge belongs to the lower bin.
        classes: counts by class; None: they are not counted, and there is no macro-F1.
    """

    images: int = 0
    top1: int = 0
    top5: int = 0
    nll: float = 0.0
    bin_images: NDArray[np.float64] = field(default_factory=_create_bins)
    bin_confidence: NDArray[np.float64] = field(default_factory=_create_bins)
    bin_correct: NDArray[np.float64] = field(default_factory=_create_bins)
    classes: ClassCounts | None = None

    def add(self, logits: FloatArray, labels: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Count a batch, and return which images are right, `[N]`.

        Logits that are all equal are no answer, and wrong whatever the label is: they stand for an image
        whose output was not finite.

        Args:
            logits: `[N, K]`.
            labels: `[N]`, indices into K.
        """
        ranked = np.argsort(-logits, axis=1, kind="stable")[:, :5]
        answered = (logits != logits[:, :1]).any(axis=1) | (logits.shape[1] == 1)
        hits = (ranked == labels[:, None]) & answered[:, None]
        correct: NDArray[np.bool_] = hits[:, 0]
        self.images += len(labels)
        self.top1 += int(correct.sum())
        self.top5 += int(hits.any(axis=1).sum())
        log_probabilities = log_softmax(logits)
        self.nll -= float(log_probabilities[np.arange(len(labels)), labels].sum())
        self.add_confidences(np.exp(log_probabilities.max(axis=1)), correct)
        if self.classes is not None:
            self.classes.add(labels, ranked[:, 0], answered, logits.shape[1])
        return correct

    def add_confidences(self, confidence: FloatArray, correct: NDArray[np.bool_]) -> None:
        """Count only for calibration: `confidence` `[N]` in (0, 1], `correct` `[N]`."""
        bins = np.searchsorted(_EDGES[1:-1], confidence, side="left")
        self.bin_images += np.bincount(bins, minlength=ECE_BINS)
        self.bin_confidence += np.bincount(bins, weights=confidence, minlength=ECE_BINS)
        self.bin_correct += np.bincount(bins, weights=correct, minlength=ECE_BINS)

    @property
    def accuracy(self) -> float:
        """Top-1 accuracy in 0..1."""
        return self.top1 / self.images if self.images else 0.0

    @property
    def top5_accuracy(self) -> float:
        """Top-5 accuracy in 0..1."""
        return self.top5 / self.images if self.images else 0.0

    @property
    def macro_f1(self) -> float | None:
        """Macro-F1 in 0..1; None if classes are not counted."""
        return None if self.classes is None else self.classes.macro_f1

    @property
    def mean_nll(self) -> float:
        """Mean negative log-probability of the label, in nats."""
        return self.nll / self.images if self.images else 0.0

    @property
    def ece(self) -> float:
        """Expected calibration error in 0..1: 15 equal bins over the whole stream."""
        total = self.bin_images.sum()
        return float(np.abs(self.bin_confidence - self.bin_correct).sum() / total) if total else 0.0
