"""Rates computed the slow way, from the predictions of all images at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def compute_macro_f1(labels: NDArray[np.int64], predictions: NDArray[np.int64]) -> float:
    """Return the mean over the classes with images of the harmonic mean of precision and recall.

    Args:
        labels, predictions: `[N]`; a prediction that is no class stands for an image without an answer.
    """
    scores = []
    for label in sorted(set(labels.tolist())):
        right = sum(a == b == label for a, b in zip(labels, predictions, strict=True))
        taken, there = (predictions == label).sum(), (labels == label).sum()
        if not right:
            scores.append(0.0)
            continue
        precision, recall = right / taken, right / there
        scores.append(2 * precision * recall / (precision + recall))
    return float(np.mean(scores))
