"""How far two graphs of one model are apart on images, and which of them is faster."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..engine.model import FloatArray, ImageArray, Outputs
from ..engine.runtime.network import Network


@dataclass(frozen=True)
class Comparison:
    """A graph against a reference, on the same images without prompts.

    Attributes:
        images: how many.
        agreement: percent of images for which both predict the same class.
        accuracy: top-1 accuracy in percent, or None where no labels are known.
        reference_accuracy: that of the reference.
        cosine_logits: mean cosine between their logits.
        cosine_features: mean cosine between their features, over images and layers.
        signal_to_noise: of the features, in dB: the reference's energy over that of the difference.
        max_abs_difference: the largest, over logits and features.
    """

    images: int
    agreement: float
    accuracy: float | None
    reference_accuracy: float | None
    cosine_logits: float
    cosine_features: float
    signal_to_noise: float
    max_abs_difference: float

    @property
    def loss(self) -> float | None:
        """Points of accuracy that the graph loses against the reference, or None."""
        if self.accuracy is None or self.reference_accuracy is None:
            return None
        return self.reference_accuracy - self.accuracy


def compare(
    answers: Iterable[tuple[Outputs, Outputs]], labels: NDArray[np.int64] | None = None
) -> Comparison:
    """Compares answers batch by batch; only sums are kept.

    Args:
        answers: of the graph and of the reference, to the same images, for each batch.
        labels: the classes `[N]` of all images in order, or None.
    """
    sums: dict[str, float] = dict.fromkeys(
        ("agree", "right", "reference", "logits", "features", "signal", "noise"), 0.0
    )
    images, vectors, worst = 0, 0, 0.0
    for ours, theirs in answers:
        predicted, expected = ours.logits.argmax(axis=1), theirs.logits.argmax(axis=1)
        if labels is not None:
            truth = labels[images : images + len(predicted)]
            sums["right"] += float((predicted == truth).sum())
            sums["reference"] += float((expected == truth).sum())
        sums["agree"] += float((predicted == expected).sum())
        sums["logits"] += float(_cosines(ours.logits, theirs.logits).sum())
        sums["features"] += float(_cosines(ours.features, theirs.features).sum())
        sums["signal"] += float(np.square(theirs.features, dtype=np.float64).sum())
        sums["noise"] += float(np.square(ours.features - theirs.features, dtype=np.float64).sum())
        worst = max(worst, *(_furthest(a, b) for a, b in _pairs(ours, theirs)))
        images += len(predicted)
        vectors += ours.features.shape[0] * ours.features.shape[1]
    known = labels is not None
    return Comparison(
        images=images,
        agreement=100 * sums["agree"] / images,
        accuracy=100 * sums["right"] / images if known else None,
        reference_accuracy=100 * sums["reference"] / images if known else None,
        cosine_logits=sums["logits"] / images,
        cosine_features=sums["features"] / vectors,
        # At most 300 dB: identical features have no noise at all.
        signal_to_noise=10 * float(np.log10(sums["signal"] / max(sums["noise"], 1e-30 * sums["signal"]))),
        max_abs_difference=worst,
    )


def _pairs(a: Outputs, b: Outputs) -> tuple[tuple[FloatArray, FloatArray], ...]:
    return (a.logits, b.logits), (a.features, b.features)


def _furthest(a: FloatArray, b: FloatArray) -> float:
    return float(np.abs(a - b).max())


def _cosines(a: FloatArray, b: FloatArray) -> FloatArray:
    """Cosines along the last axis; 0 where a vector is zero."""
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return np.asarray((a * b).sum(axis=-1) / np.maximum(norms, np.finfo(np.float32).tiny))


def relative_time(
    network: Network, reference: Network, images: ImageArray, rounds: int = 5
) -> tuple[float, float]:
    """Seconds per image of a network, and the same over the reference's: medians of rounds taken in turn.

    Args:
        network: the one to judge.
        reference: what it is compared with.
        images: uint8 `[N, H, W, 3]`, one batch.
        rounds: how often each runs, after one that warms up.
    """

    def seconds(run: Callable[[ImageArray], object]) -> float:
        begin = time.perf_counter()
        run(images)
        return time.perf_counter() - begin

    pairs = [(seconds(network), seconds(reference)) for _ in range(rounds + 1)][1:]
    return (
        statistics.median(ours for ours, _ in pairs) / len(images),
        statistics.median(ours / theirs for ours, theirs in pairs),
    )
