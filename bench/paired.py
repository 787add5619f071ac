"""Paired differences of accuracy, image by image, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from fozo.evaluation import Run, shuffle_order
from numpy.typing import NDArray

CLEAN = "clean"
RESAMPLES = 10_000
LEVEL = 95  # per cent of an interval


@dataclass(frozen=True)
class Difference:
    """Difference of accuracy between two methods on the same images, in points.

    Attributes:
        mean: the difference.
        low: lower end of the interval.
        high: upper end of the interval.
    """

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:+.1f} ({self.low:+.1f} to {self.high:+.1f})"


def compare(first: tuple[Run, str], second: tuple[Run, str], *, clean: bool = False) -> Difference:
    """Return by how much the second method is above the first, averaged over the corruptions.

    The same images come in every domain, so their errors are not independent. The interval is a percentile
    bootstrap over images, each with all its corruptions.

    Args:
        first: run and label of the method that is compared with.
        second: run and label of the method.
        clean: compare on clean images instead.

    Raises:
        ValueError: the runs did not see the same images.
    """
    shares = [average_by_image(run, label, clean=clean) for run, label in (first, second)]
    if describe_images(first[0]) != describe_images(second[0]):
        raise ValueError(f"{first[1]} and {second[1]} did not see the same images")
    return bootstrap(100 * (shares[1] - shares[0]))


def bootstrap(differences: NDArray[np.float64]) -> Difference:
    """Return the mean of differences `[N]`, and its percentile interval over resampled images."""
    rng = np.random.default_rng(0)
    counts = rng.multinomial(len(differences), np.full(len(differences), 1 / len(differences)), RESAMPLES)
    low, high = np.percentile(counts @ differences / len(differences), [50 - LEVEL / 2, 50 + LEVEL / 2])
    return Difference(float(differences.mean()), float(low), float(high))


def average_by_image(run: Run, label: str, *, clean: bool = False) -> NDArray[np.float64]:
    """Return the share of its corruptions that a method got right, for each image in the data's order, `[N]`.

    Args:
        run: a complete run of the setting `reset`.
        label: of the method.
        clean: take clean images instead of the corruptions.
    """
    rows = []
    for domain in run.domains:
        if (domain.name == CLEAN) == clean:
            right = domain.methods[label].right.array()
            by_image = np.empty(len(right))
            by_image[shuffle_order(len(right), domain.name, run.seed)] = right
            rows.append(by_image)
    return np.mean(rows, axis=0)


def describe_images(run: Run) -> Sequence[tuple[str, str]]:
    """Return names of the domains, each with the hash of its images."""
    return [(domain.name, domain.ids_sha256) for domain in run.domains]
