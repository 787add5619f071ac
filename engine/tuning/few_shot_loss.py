"""Losses of labelled images: cross-entropy from image features that are computed once, and focal loss."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..model import FloatArray
from ..statistics.objective import log_softmax


def compute_losses(features: FloatArray, labels: NDArray[np.int64], classifiers: FloatArray) -> FloatArray:
    """Return the mean cross-entropy of N images under each of C classifiers, in nats, float64 `[C]`.

    Args:
        features: of the images, `[N, F]`.
        labels: their classes, `[N]`.
        classifiers: float32 `[C, K, F]`, as `ModelInfo.head_weight`.
    """
    rows = np.arange(len(labels))
    losses = [-log_softmax(features @ classifier.T)[rows, labels].mean() for classifier in classifiers]
    return np.asarray(losses, np.float64)


def compute_batch_losses(
    features: FloatArray, labels: NDArray[np.int64], classifiers: FloatArray, batch: int
) -> FloatArray:
    """Return the mean cross-entropy of each batch under each of C classifiers, in nats, float64 `[C, B]`.

    As in training, a last batch that is not full is left out, unless it is the only one.

    Args:
        features: of the images, `[N, F]`.
        labels: their classes, `[N]`.
        classifiers: float32 `[C, K, F]`.
        batch: images in a batch.
    """
    starts = range(0, max(1, len(labels) // batch) * batch, batch)
    columns = [
        compute_losses(features[start : start + batch], labels[start : start + batch], classifiers)
        for start in starts
    ]
    return np.stack(columns, axis=1)


def compute_focal_loss(logits: FloatArray, labels: NDArray[np.int64], gamma: float) -> float:
    """Return the mean focal loss `−(1 − p)^γ ln p` of N images (Lin et al., ICCV 2017), in nats.

    >>> logits = np.log([[0.9, 0.1], [0.5, 0.5], [0.1, 0.9]])
    >>> round(compute_focal_loss(logits, np.zeros(3, np.int64), 2.0), 10)
    0.6798114419

    Args:
        logits: `[N, K]`.
        labels: the classes, `[N]`.
        gamma: γ; 0 is the cross-entropy.
    """
    log_p = log_softmax(logits.astype(np.float64))[np.arange(len(labels)), labels]
    return float(((1 - np.exp(log_p)) ** gamma * -log_p).mean())
