"""The domain detector: statistic (docs/specification.md §12.5), threshold, hold-off."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fozo.engine.model import FloatArray
from fozo.engine.statistics.domain_detector import (
    DomainEstimate,
    DomainRules,
    compute_channel_distances,
    compute_channel_statistics,
    compute_distance,
    merge_channel_statistics,
    observe,
)

RULES = DomainRules(0.1, 8, "accumulate", 0.8)
LEFT = np.array([[0.0, 1, -1], [1, 2, 0.5]])
RIGHT = np.array([[0.5, 1, -0.5], [1.5, 1, 0.5]])


def positions(images: int, seed: int = 0, mean: float = 0.0, spread: float = 1.0) -> FloatArray:
    """Values `[N, 50, 3]`, each image with a mean of its own."""
    generator = np.random.default_rng(seed)
    drawn: FloatArray = mean + spread * (
        generator.normal(size=(images, 50, 3)) + 0.3 * generator.normal(size=(images, 1, 3))
    )
    return drawn


def embedded(values: FloatArray) -> FloatArray:
    stacked: FloatArray = np.stack([values.mean(axis=1), values.var(axis=1)], axis=1).astype(np.float32)
    return stacked


def batch(images: int, seed: int = 0, mean: float = 0.0, spread: float = 1.0) -> FloatArray:
    return embedded(positions(images, seed, mean, spread))


# --- the statistic


def test_published_distance() -> None:
    np.testing.assert_allclose(
        compute_channel_distances(LEFT, RIGHT), [0.2916666551, 0.2499999888, 0.4999999700], rtol=0, atol=1e-9
    )
    assert compute_distance(LEFT, RIGHT) == pytest.approx(0.3472222046, abs=1e-9)


def test_distance_is_symmetric_and_zero_for_equals() -> None:
    assert compute_distance(LEFT, RIGHT) == pytest.approx(compute_distance(RIGHT, LEFT), rel=1e-12)
    assert compute_distance(LEFT, LEFT) == pytest.approx(0, abs=1e-7)


def test_distance_is_never_negative() -> None:
    generator = np.random.default_rng(0)
    for scale in (1e-6, 1e-2, 1, 1e3):
        for _ in range(200):
            pair = scale * generator.normal(size=(2, 2, 4))
            pair[:, 1] **= 2
            assert compute_distance(*pair) > -1e-7 or scale == 1e-6  # variances of 1e-12 drown in the guard


def test_distance_without_variance_is_finite() -> None:
    flat = np.zeros((2, 3))
    assert np.isfinite(compute_distance(flat, LEFT)) and compute_distance(flat, LEFT) > 1e3


def test_statistics_are_those_over_all_positions() -> None:
    values = positions(7)
    flat = values.reshape(-1, 3)
    expected = np.stack([flat.mean(axis=0), flat.var(axis=0)])
    np.testing.assert_allclose(compute_channel_statistics(embedded(values)), expected, rtol=1e-5, atol=1e-6)
    assert compute_channel_statistics(embedded(values)).dtype == np.float64


def test_pooled_statistics_are_those_of_both() -> None:
    values = positions(9, mean=0.5)
    values[:4] += 3
    left, right = (compute_channel_statistics(embedded(part)) for part in (values[:4], values[4:]))
    flat = values.reshape(-1, 3)
    np.testing.assert_allclose(
        merge_channel_statistics(left, 4, right, 5),
        np.stack([flat.mean(axis=0), flat.var(axis=0)]),
        rtol=1e-5,
    )


# --- the decision


def test_the_first_batch_is_taken_over() -> None:
    seen = observe(DomainEstimate(), batch(8), RULES)
    assert (seen.changed, seen.distance) == (False, None)
    np.testing.assert_array_equal(seen.domain.statistics, compute_channel_statistics(batch(8)))


def test_the_same_domain_moves_the_statistics() -> None:
    first, second = compute_channel_statistics(batch(8, 1)), compute_channel_statistics(batch(8, 2))
    seen = observe(DomainEstimate(first), batch(8, 2), RULES)
    assert not seen.changed
    assert seen.distance == pytest.approx(compute_distance(first, second))
    np.testing.assert_allclose(seen.domain.statistics, 0.8 * first + 0.2 * second, rtol=1e-12)


def test_another_domain_starts_anew() -> None:
    seen = observe(DomainEstimate(compute_channel_statistics(batch(8))), batch(8, 1, mean=2.0), RULES)
    assert seen.changed and seen.distance is not None and seen.distance > 0.1
    np.testing.assert_array_equal(seen.domain.statistics, compute_channel_statistics(batch(8, 1, mean=2.0)))


def test_the_threshold_itself_is_no_change() -> None:
    known = DomainEstimate(compute_channel_statistics(batch(8)))
    apart = observe(known, batch(8, 1), RULES).distance
    assert apart is not None and apart > 0
    assert not observe(known, batch(8, 1), replace(RULES, threshold=apart)).changed
    assert observe(known, batch(8, 1), replace(RULES, threshold=apart * 0.999)).changed


# --- small batches


def test_skipped_batches_leave_no_trace() -> None:
    known = DomainEstimate(compute_channel_statistics(batch(8)))
    seen = observe(known, batch(7, 1, mean=5.0), replace(RULES, small_batches="skip"))
    assert seen.domain is known and not seen.changed and seen.distance is None


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7])
def test_small_batches_are_checked_together(size: int) -> None:
    values = positions(24, mean=2.0)
    domain = DomainEstimate(compute_channel_statistics(batch(8)))
    taken = 0
    while True:
        part = values[taken : taken + size]
        seen = observe(domain, embedded(part), RULES)
        taken += size
        if taken >= 8:
            break
        assert (seen.changed, seen.distance) == (False, None)
        assert seen.domain.pool_images == taken
        np.testing.assert_array_equal(seen.domain.statistics, domain.statistics)
        domain = seen.domain
    together = compute_channel_statistics(embedded(values[:taken]))
    assert seen.changed
    assert seen.distance == pytest.approx(compute_distance(domain.statistics, together), rel=1e-5)
    np.testing.assert_allclose(seen.domain.statistics, together, rtol=1e-6)
    assert (seen.domain.pool_images, seen.domain.pool.size) == (0, 0)


def test_a_large_batch_is_checked_alone() -> None:
    """What was left of the domain before does not spoil the comparison."""
    waiting = observe(DomainEstimate(compute_channel_statistics(batch(8))), batch(7, 1), RULES).domain
    assert waiting.pool_images == 7
    seen = observe(waiting, batch(8, 2, mean=2.0), RULES)
    np.testing.assert_array_equal(seen.domain.statistics, compute_channel_statistics(batch(8, 2, mean=2.0)))
    assert seen.changed and seen.domain.pool_images == 0


# --- hold-off


def test_hold_off() -> None:
    rules = replace(RULES, hold_off=2, keep=1.0)
    domain, reported = DomainEstimate(compute_channel_statistics(batch(8))), []
    for mean in (2.0, -2.0, 4.0, -4.0, 6.0):
        seen = observe(domain, batch(8, 1, mean=mean), rules)
        domain = seen.domain
        reported.append(seen.changed)
        assert seen.distance is not None and seen.distance > 0.1
    assert reported == [True, False, False, True, False]


def test_arrays_are_not_changed() -> None:
    known = DomainEstimate(compute_channel_statistics(batch(8)), compute_channel_statistics(batch(3, 5)), 3)
    given = batch(6, 1)
    for array in (known.statistics, known.pool, given):
        array.setflags(write=False)
    observe(known, given, RULES)
