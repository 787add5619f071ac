"""Derivatives of the adaptation losses with respect to the outputs of a forward, in closed form, float64."""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import NDArray

from ..model import FloatArray, SourceStatistics
from .feature_statistics import Moments
from .objective import log_softmax, scale_deviations


def derive_entropy(logits: FloatArray) -> FloatArray:
    """Return the derivative of each prediction's entropy H: `−p (ln p + H)`, `[N, K]`.

    Args:
        logits: `[N, K]`.

    >>> print(derive_entropy(np.array([[0.0, 0.0], [np.log(3), 0.0]])).round(3))
    [[-0.    -0.   ]
     [-0.206  0.206]]
    """
    log_p = log_softmax(logits)
    p = np.exp(log_p)
    entropies = -np.einsum("nk,nk->n", p, log_p)
    return cast(FloatArray, -p * (log_p + entropies[:, None]))


def derive_cross_entropy(logits: FloatArray, classes: NDArray[np.int64]) -> FloatArray:
    """Return the derivative of each prediction's cross entropy with a class, `p − e_class`, `[N, K]`.

    Args:
        logits: `[N, K]`.
        classes: indices `[N]`.

    >>> print(derive_cross_entropy(np.array([[np.log(3), 0.0]]), np.array([0])))
    [[-0.25  0.25]]
    """
    slopes = np.exp(log_softmax(logits))
    slopes[np.arange(len(logits)), classes] -= 1
    return slopes


def derive_discrepancy(features: FloatArray, moments: Moments, source: SourceStatistics) -> FloatArray:
    """Return n times the derivative of the squared discrepancy S, which does not depend on n, `[N, L, F]`.

    `n ∂S/∂f_i = 2 (μ − μ_S) + 2 (σ − σ_S) n (f_i − μ) / ((n − 1) σ)`, coordinate by coordinate; without the
    second term for a single image, which has no standard deviation.

    Args:
        features: `[N, L, F]`.
        moments: of the n images whose statistics are aligned, these N among them.
        source: statistics of clean images, `[L, F]`.

    >>> features = np.array([[[0.0]], [[2.0]]])
    >>> source = SourceStatistics(np.array([[0.5]]), np.array([[np.sqrt(2)]]), 100)
    >>> print(derive_discrepancy(features, Moments.of(features), source).ravel())  # only the mean is off
    [1. 1.]
    """
    slopes = np.broadcast_to(2 * (moments.mean - source.mean), features.shape)
    scale = scale_deviations(moments, source)
    return slopes if scale is None else slopes + scale * (features - moments.mean)
