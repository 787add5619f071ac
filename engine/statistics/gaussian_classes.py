"""Classes as Gaussians with one covariance: means and covariances of features, and the scores they give."""

from __future__ import annotations

from typing import cast

import numpy as np

from ..model import FloatArray
from .class_memory import ClassMemory

FEW = 4  # times the width: up to so many features, their covariance is shrunk


def compute_means(memory: ClassMemory, fallback: FloatArray, *, by_slots: bool) -> FloatArray:
    """Return the mean of each class in a memory, float64 `[K, E]`; that of `fallback` below two features.

    Args:
        memory: the features.
        fallback: means of classes with fewer than two features, `[K, E]`.
        by_slots: divide the sum by the number of slots, in use or not (official code of OGA).
    """
    sums = memory.features.sum(axis=1, dtype=np.float64)
    slots = memory.entropies.shape[1]
    divisor = np.full(len(sums), slots) if by_slots else np.maximum(memory.counts, 1)
    means: FloatArray = np.where((memory.counts >= 2)[:, None], sums / divisor[:, None], fallback)
    return means


def compute_precision(memory: ClassMemory, means: FloatArray) -> FloatArray:
    """Return the inverse of the covariance that all classes share, float64 `[E, E]`.

    Deviations of all features from the mean of their class have the covariance Σ. Of n ≤ 4 E features it is
    shrunk, `E ((n − 1) Σ + tr Σ · I)⁻¹`, of more it is pseudo-inverted as it is. Before a class has three
    features, or if all features equal their means, it is `E · I`.

    Args:
        memory: the features.
        means: of each class, `[K, E]`.
    """
    width = means.shape[1]
    labels, slots = np.nonzero(memory.used)
    deviations = memory.features[labels, slots] - means[labels]
    deviations -= deviations.mean(axis=0) if len(deviations) else 0.0
    scatter = deviations.T @ deviations
    count, trace = len(deviations), float(scatter.trace())
    if not (memory.counts > 2).any() or not trace:
        return cast(FloatArray, width * np.eye(width))
    if count <= FEW * width:
        return invert_scatter(scatter, count)
    try:
        return cast(FloatArray, np.linalg.pinv(scatter / (count - 1), hermitian=True))
    except np.linalg.LinAlgError:  # numbers that are not finite: the fallback refuses such a state
        return np.full_like(scatter, np.nan)


def invert_scatter(scatter: FloatArray, count: int) -> FloatArray:
    """Return the shrunk inverse of a covariance, `E ((n − 1) Σ + tr Σ · I)⁻¹`, float64 `[E, E]`.

    Where all deviations are zero it is `E · I`.

    Args:
        scatter: `(n − 1) Σ`, the sum of `d dᵀ` over deviations d from their mean, `[E, E]`.
        count: n.
    """
    width, trace = len(scatter), float(scatter.trace())
    if not trace:
        return cast(FloatArray, width * np.eye(width))
    shrunk = scatter + trace / (count - 1) * np.eye(width)
    inverse: FloatArray = np.linalg.inv(shrunk)
    return width * inverse


def score_classes(features: FloatArray, means: FloatArray, precision: FloatArray) -> FloatArray:
    """Return `x · Λ μ_k − ½ μ_k · Λ μ_k`, float64 `[N, K]`.

    Up to a term that all classes share, it is `−½ (x − μ_k) · Λ (x − μ_k)`, the log-density.

    Args:
        features: x, `[N, E]`.
        means: μ, `[K, E]`.
        precision: Λ, symmetric `[E, E]`.
    """
    weights = means @ precision
    return cast(FloatArray, features @ weights.T - 0.5 * np.einsum("ke,ke->k", weights, means))


def scatter_by_probability(features: FloatArray, probabilities: FloatArray, means: FloatArray) -> FloatArray:
    """Return `Σ_i Σ_k p_ik (x_i − μ_k)(x_i − μ_k)ᵀ`, float64 `[E, E]`.

    Args:
        features: x, `[N, E]`.
        probabilities: p, `[N, K]`, rows that add up to 1.
        means: μ, `[K, E]`.
    """
    mixed = features.T @ (probabilities @ means)
    weights = probabilities.sum(axis=0)
    return cast(FloatArray, features.T @ features - mixed - mixed.T + means.T @ (weights[:, None] * means))
