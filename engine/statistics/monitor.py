"""Label-free monitors: what predictions alone say about whether adaptation is still sane.

Two cheap ones look at the adapted predictions: how much they tell images apart, and whether their entropy or
their distance to the source has jumped. One more compares them with those of the frozen network on the same
images, where these are at hand, and estimates how many predictions adaptation has cost.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from ..model import FloatArray

MIN_IMAGES = 8  # fewer say nothing about how diverse predictions are
POOL_IMAGES = 32  # and these are enough: on ImageNet images the reading is steady from 16 on
# How often the adapted network is right where both differ and the frozen one is wrong, at most: measured
# were 0.25 to 0.3 where adaptation helps much, and less than 0.1 on images that hardly anything is known of.
RESCUE_RATE = 0.2


class Alarm(IntEnum):
    """The reason why the guard stepped in."""

    NONE = 0
    ALIKE = 1  # the batch: even the frozen network can hardly tell its images apart
    COLLAPSE = 2  # the method: its predictions are all alike, and the frozen network's are not
    LOSS = 3  # the method: it has probably cost more predictions than is tolerated


@dataclass(frozen=True)
class PredictionPool:
    """The predictions of the last images, in constant memory.

    Attributes:
        images: how many, at most those of the last batch or `POOL_IMAGES`, fractions of earlier ones counted.
        mean: mean of their probabilities, float64 `[K]`.
        entropy: mean of their entropies, in nats.
    """

    images: float
    mean: FloatArray
    entropy: float

    @staticmethod
    def empty(classes: int) -> PredictionPool:
        """Return a pool before the first image."""
        return PredictionPool(0.0, np.zeros(classes), 0.0)

    @staticmethod
    def of(probabilities: FloatArray) -> PredictionPool:
        """Return the pool of one batch of probabilities `[N, K]`."""
        return PredictionPool(
            float(len(probabilities)), probabilities.mean(axis=0), float(_entropy(probabilities).mean())
        )

    def fill_from(self, earlier: PredictionPool) -> PredictionPool:
        """Return this batch's pool, filled up to `POOL_IMAGES` with the earlier one."""
        room = min(earlier.images, max(0.0, POOL_IMAGES - self.images))
        if not room:
            return self
        total = self.images + room
        share = room / total
        return PredictionPool(
            total,
            (1 - share) * self.mean + share * earlier.mean,
            (1 - share) * self.entropy + share * earlier.entropy,
        )

    @property
    def diversity(self) -> float | None:
        """Diversity of the predictions: 0 if all are alike, 1 if each image surely has its own class.

        The mutual information between image and prediction, H(mean p) − mean H(p), as a share of the most it
        can be, log min(N, K). None if there are too few images, or a single class.
        """
        kinds = min(self.images, len(self.mean))
        if self.images < MIN_IMAGES or kinds < 2:
            return None
        information = float(_entropy(self.mean)) - self.entropy
        return max(0.0, information / float(np.log(kinds)))


def has_jumped(value: float, average: float | None, ratio: float) -> bool:
    """Return whether a positive reading differs from its running average by more than a factor."""
    if average is None:
        return False
    small, large = sorted((value, average))
    return large > ratio * small


def estimate_loss(frozen: FloatArray, adapted: FloatArray) -> float:
    """Estimate how many predictions of a batch adaptation has made wrong, net of those it has corrected.

    Where both networks predict the same class, nothing is lost. Where they differ, the frozen one was right
    with probability r, and adaptation has lost that. For r we take the frozen network's confidence times its
    mean over the batch: under corruption confidence promises too much, the more so the lower it is on the
    whole. Where the frozen one was wrong, the adapted one is right with `RESCUE_RATE`, or less on images that
    are hardly recognisable: so that over a batch it would find no more than the frozen one does. So on
    images that the frozen network knows well an adapted one must mostly agree, and on those it does not know
    it may differ as it likes.

    Args:
        frozen: probabilities of the frozen network, `[N, K]`.
        adapted: logits or probabilities of the adapted network, `[N, K]`.
    """
    confidence = frozen.max(axis=1)
    right = confidence * confidence.mean()
    differs = frozen.argmax(axis=1) != adapted.argmax(axis=1)
    accuracy = min(float(right.mean()), 0.5)  # more is above the rate in any case
    rescue = min(RESCUE_RATE, accuracy / (1 - accuracy))
    return float(np.sum(differs * (right - rescue * (1 - right))))


def compute_agreement(frozen: FloatArray, adapted: FloatArray) -> float:
    """Return the share of images for which both, `[N, K]` each, predict the same class."""
    return float(np.mean(frozen.argmax(axis=1) == adapted.argmax(axis=1)))


def _entropy(probabilities: FloatArray) -> FloatArray:
    """Return the entropy in nats over the last axis."""
    logs = np.log(probabilities, out=np.zeros_like(probabilities), where=probabilities > 0)
    result: FloatArray = -np.sum(probabilities * logs, axis=-1)
    return result
