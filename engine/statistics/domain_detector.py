"""Detection of a new domain from the embedding of a batch.

The statistic is a symmetrised Kullback-Leibler divergence between Gaussians, one per channel, as in ZOA (ACM
MM 2025, official code). A threshold decides, and after a change further ones may be held off.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, cast

import numpy as np

from ..model import FloatArray
from ..state import variable_length_array

MIN_VARIANCE = 1e-8
SmallBatches = Literal["accumulate", "skip"]


def _create_empty_statistics() -> FloatArray:
    return np.zeros((0, 0))


@dataclass(frozen=True)
class DomainEstimate:
    """An estimate of the current domain.

    Attributes:
        statistics: mean and variance of each channel, float64 `[2, E]`, or `[0, 0]` before the first.
        pool: those of the images that are still too few for a check, in the same form.
        pool_images: how many these are.
        hold_off: checks left that report no change.
    """

    statistics: FloatArray = variable_length_array(axes=2, default_factory=_create_empty_statistics)
    pool: FloatArray = variable_length_array(axes=2, default_factory=_create_empty_statistics)
    pool_images: int = 0
    hold_off: int = 0


@dataclass(frozen=True)
class DomainRules:
    """The rules by which a domain is taken for another one.

    Attributes:
        threshold: distance above which it is another one.
        min_images: images that a check needs.
        small_batches: smaller batches `accumulate` until they are enough, or are skipped (official code).
        keep: share of the old statistics that one update keeps.
        hold_off: checks after a change that report no other.
    """

    threshold: float
    min_images: int
    small_batches: SmallBatches
    keep: float
    hold_off: int = 0


@dataclass(frozen=True)
class Observation:
    """The domain after a batch.

    Attributes:
        domain: its estimate now.
        distance: from the estimate before; None where nothing was checked.
        changed: whether it is another domain than before.
    """

    domain: DomainEstimate
    distance: float | None = None
    changed: bool = False


def compute_channel_statistics(embedding: FloatArray) -> FloatArray:
    """Return mean and variance of each channel over all positions of all images, float64 `[2, E]`.

    The variance is the biased one; the official code's differs by 1 in the number of positions, thousands.

    Args:
        embedding: mean and biased variance of each image, `[N, 2, E]`.
    """
    means, variances = (embedding[:, moment].astype(np.float64) for moment in (0, 1))
    return np.stack([means.mean(axis=0), variances.mean(axis=0) + means.var(axis=0)])


def merge_channel_statistics(
    left: FloatArray, left_images: int, right: FloatArray, right_images: int
) -> FloatArray:
    """Return channel statistics of two sets of images together, float64 `[2, E]`, from those of each."""
    share = right_images / (left_images + right_images)
    mean, variance = (1 - share) * left + share * right
    return np.stack([mean, variance + share * (1 - share) * np.square(left[0] - right[0])])


def compute_distance(left: FloatArray, right: FloatArray) -> float:
    """Return the divergence of two channel statistics `[2, E]`, symmetric, mean over channels; 0 if equal."""
    return float(compute_channel_distances(left, right).mean())


def compute_channel_distances(left: FloatArray, right: FloatArray) -> FloatArray:
    """Return the symmetrised divergence of each channel, float64 `[E]`.

    `(v_l + δ²) / 2v_r + (v_r + δ²) / 2v_l − 1`, with δ the difference of means.
    """
    (left_mean, left_variance), (right_mean, right_variance) = left, right
    gap = np.square(left_mean - right_mean)
    forward_divergence = (left_variance + gap) / (2 * (right_variance + MIN_VARIANCE))
    backward_divergence = (right_variance + gap) / (2 * (left_variance + MIN_VARIANCE))
    return cast(FloatArray, forward_divergence + backward_divergence - 1)


def observe(domain: DomainEstimate, embedding: FloatArray, rules: DomainRules) -> Observation:
    """Check a batch against the domain, and add it to its statistics or start new ones with it.

    Args:
        domain: the estimate before.
        embedding: of the batch, `[N, 2, E]`.
        rules: when it is another domain.
    """
    statistics, images = compute_channel_statistics(embedding), len(embedding)
    if images < rules.min_images:
        if rules.small_batches == "skip":
            return Observation(domain)
        if domain.pool_images:
            statistics = merge_channel_statistics(domain.pool, domain.pool_images, statistics, images)
            images += domain.pool_images
        if images < rules.min_images:
            return Observation(replace(domain, pool=statistics, pool_images=images))
    if not domain.statistics.size:
        return Observation(DomainEstimate(statistics))
    divergence = compute_distance(domain.statistics, statistics)
    if divergence > rules.threshold and not domain.hold_off:
        return Observation(DomainEstimate(statistics, hold_off=rules.hold_off), divergence, True)
    mixed = rules.keep * domain.statistics + (1 - rules.keep) * statistics
    return Observation(DomainEstimate(mixed, hold_off=max(0, domain.hold_off - 1)), divergence)
