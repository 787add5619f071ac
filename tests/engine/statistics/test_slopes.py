"""The slopes of the loss against finite differences, and the discrepancy that chance gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fozo.engine.statistics.feature_statistics import Moments
from fozo.engine.statistics.objective import (
    compute_discrepancy,
    compute_discrepancy_slopes,
    compute_diversity_slopes,
    estimate_chance_discrepancy,
    softmax,
)


def test_discrepancy_slopes_are_the_derivative(stand_in: Callable[..., Any]) -> None:
    """Against finite differences of the discrepancy of batch and window together, image by image."""
    generator = np.random.default_rng(0)
    features, past = generator.normal(size=(5, 2, 3)), generator.normal(size=(7, 2, 3))
    source, step = stand_in().info.source, 1e-5
    moments = Moments.of(features).merge(Moments.of(past))
    along = generator.normal(size=features.shape)
    found = compute_discrepancy_slopes(features, features + along, features - along, moments, source)
    for index in range(5):
        losses = []
        for sign in (1, -1):
            moved = features.copy()
            moved[index] += sign * step * along[index]
            losses.append(compute_discrepancy(Moments.of(moved).merge(Moments.of(past)), source))
        expected = (losses[0] - losses[1]) / step * 12 / 64
        assert found[index] == pytest.approx(expected, rel=1e-5)


def test_discrepancy_slopes_of_a_single_image_and_of_constant_features(stand_in: Callable[..., Any]) -> None:
    source = stand_in().info.source
    features = np.ones((1, 2, 3))
    alone = compute_discrepancy_slopes(features, features + 1, features, Moments.of(features), source)
    assert alone == pytest.approx(2 * (1 - source.mean).sum() / 64)
    constant = np.ones((4, 2, 3))
    assert np.isfinite(
        compute_discrepancy_slopes(constant, constant + 1, constant, Moments.of(constant), source)
    ).all()


def test_diversity_slopes_are_the_derivative() -> None:
    generator = np.random.default_rng(1)
    logits, along, step = generator.normal(size=(6, 5)), generator.normal(size=(6, 5)), 1e-4
    found = compute_diversity_slopes(logits + step * along, logits - step * along)
    for index in range(6):
        ends = []
        for sign in (1, -1):
            moved = logits.copy()
            moved[index] += sign * step * along[index]
            mean = softmax(moved).mean(axis=0)
            ends.append(float(-6 * (mean * np.log(mean)).sum()))
        assert found[index] == pytest.approx(ends[0] - ends[1], rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("known_from", [32, 10**6])
def test_chance_is_what_clean_images_have(stand_in: Callable[..., Any], known_from: int) -> None:
    """Both sides are estimates: the source statistics as well, of few images or of as good as all."""
    exact = stand_in().info.source
    axes, generator = exact.mean.shape, np.random.default_rng(0)

    def clean(count: int) -> Moments:
        return Moments.of(generator.normal(exact.mean, exact.std, (count, *axes)))

    for count in (1, 2, 64, 200):
        found = []
        for _ in range(4000):
            source = replace(exact, images=known_from)
            if known_from < 100:
                drawn = clean(known_from)
                source = replace(source, mean=drawn.mean, std=drawn.std)
            found.append(compute_discrepancy(clean(count), source))
        # For two images a standard deviation is not yet as for many.
        tolerance = 0.25 if count == 2 else 0.05
        expected = estimate_chance_discrepancy(replace(exact, images=known_from), count)
        assert expected == pytest.approx(np.mean(found), rel=tolerance)
