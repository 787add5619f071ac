"""Comparison of two graphs of one model: differences of their outputs, and relative time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..engine.model import FloatArray, ImageArray, Outputs
from ..engine.runtime.network import Network
from ..engine.statistics.chance import is_chance


@dataclass(frozen=True)
class Comparison:
    """A graph against a reference, on the same images without prompts.

    Attributes:
        images: number of images.
        agreement: percent of images for which both predict the same class.
        accuracy: top-1 accuracy in percent, or None without labels.
        reference_accuracy: top-1 accuracy of the reference, likewise.
        cosine_logits: mean cosine between their logits.
        cosine_features: mean cosine between their features, over images and layers.
        signal_to_noise: of the features, in dB: the reference's energy over that of the difference.
        max_abs_difference: largest absolute difference, over logits and features; NaN or infinite if one of
            these is.
        classes: number of classes that were predicted among.
    """

    images: int
    agreement: float
    accuracy: float | None
    reference_accuracy: float | None
    cosine_logits: float
    cosine_features: float
    signal_to_noise: float
    max_abs_difference: float
    classes: int

    @property
    def is_finite(self) -> bool:
        """True if all logits and features, and so the measurements, are finite."""
        measurements = (
            self.cosine_logits,
            self.cosine_features,
            self.signal_to_noise,
            self.max_abs_difference,
        )
        return bool(np.isfinite(measurements).all())

    @property
    def labels_are_doubtful(self) -> bool:
        """True if the reference is no better than guessing, so that its accuracy says nothing."""
        if self.reference_accuracy is None:
            return False
        return is_chance(round(self.reference_accuracy * self.images / 100), self.images, self.classes)

    @property
    def accuracy_decides(self) -> bool:
        """True if accuracies are known and the reference is better than guessing."""
        return self.loss is not None and not self.labels_are_doubtful

    @property
    def loss(self) -> float | None:
        """Points of accuracy that the graph loses against the reference, or None."""
        if self.accuracy is None or self.reference_accuracy is None:
            return None
        return self.reference_accuracy - self.accuracy


def compare(
    output_pairs: Iterable[tuple[Outputs, Outputs]], labels: NDArray[np.int64] | None = None
) -> Comparison:
    """Compare outputs batch by batch, keeping only sums.

    Args:
        output_pairs: outputs of the graph and of the reference for the same images, for each batch.
        labels: the classes `[N]` of all images in order, or None.
    """
    sums: dict[str, float] = dict.fromkeys(
        ("agree", "right", "reference", "logits", "features", "signal", "noise"), 0.0
    )
    images, vectors, classes, difference = 0, 0, 0, 0.0
    for outputs, reference in output_pairs:
        predicted, expected = outputs.logits.argmax(axis=1), reference.logits.argmax(axis=1)
        if labels is not None:
            truth = labels[images : images + len(predicted)]
            sums["right"] += float((predicted == truth).sum())
            sums["reference"] += float((expected == truth).sum())
        sums["agree"] += float((predicted == expected).sum())
        sums["logits"] += float(_compute_cosines(outputs.logits, reference.logits).sum())
        sums["features"] += float(_compute_cosines(outputs.features, reference.features).sum())
        sums["signal"] += float(np.square(reference.features, dtype=np.float64).sum())
        sums["noise"] += float(np.square(outputs.features - reference.features, dtype=np.float64).sum())
        difference = float(np.maximum(difference, _max_difference(outputs, reference)))
        images += len(predicted)
        classes = outputs.logits.shape[1]
        vectors += outputs.features.shape[0] * outputs.features.shape[1]
    labelled = labels is not None
    return Comparison(
        images=images,
        agreement=100 * sums["agree"] / images,
        accuracy=100 * sums["right"] / images if labelled else None,
        reference_accuracy=100 * sums["reference"] / images if labelled else None,
        cosine_logits=sums["logits"] / images,
        cosine_features=sums["features"] / vectors,
        # At most 300 dB: identical features have no noise at all.
        signal_to_noise=10 * float(np.log10(sums["signal"] / max(sums["noise"], 1e-30 * sums["signal"]))),
        max_abs_difference=difference,
        classes=classes,
    )


def _max_difference(a: Outputs, b: Outputs) -> float:
    """Return the largest absolute difference over logits and features; NaN if one is."""
    logits, features = np.abs(a.logits - b.logits).max(), np.abs(a.features - b.features).max()
    return float(np.maximum(logits, features))  # unlike `max`, which loses NaN


def _compute_cosines(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return cosines along the last axis; 0 where a vector is zero."""
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return np.asarray((a * b).sum(axis=-1) / np.maximum(norms, np.finfo(np.float32).tiny))


def measure_relative_time(
    network: Network, reference: Network, images: ImageArray, rounds: int = 5
) -> tuple[float, float]:
    """Measure seconds per image of a network, and their ratio to those of a reference.

    Both are medians over rounds in which the two networks take turns.

    Args:
        network: the network to judge.
        reference: the network to compare it with.
        images: uint8 `[N, H, W, 3]`, one batch.
        rounds: number of rounds, after one that warms up.
    """

    def time_run(run: Callable[[ImageArray], object]) -> float:
        start = time.perf_counter()
        run(images)
        return time.perf_counter() - start

    pairs = [(time_run(network), time_run(reference)) for _ in range(rounds + 1)][1:]
    return (
        statistics.median(seconds for seconds, _ in pairs) / len(images),
        statistics.median(seconds / reference_seconds for seconds, reference_seconds in pairs),
    )
