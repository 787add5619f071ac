"""The order in which images arrive under every setting, and what is forgotten when."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fozo.eval.datasets.corruption_names import CLEAN, IMAGENET_C
from fozo.eval.datasets.domain import Domain
from fozo.eval.protocol import SETTINGS, Protocol, Setting
from fozo.eval.streaming.stream import Segment, order_by_class, plan_segments, shuffle_order
from numpy.typing import NDArray

PINNED = [5, 8, 7, 1, 0, 6, 3, 9, 4, 2]
PINNED_SECOND_ROUND = [0, 3, 9, 6, 1, 7, 4, 5, 2, 8]


def domain(count: int = 100, name: str = "fog", classes: int = 10) -> Domain:
    """Image i is three bytes that say i, and its domain; its class is i modulo 10."""
    sign = sum(name.encode()) % 256

    def load(index: int) -> NDArray[np.uint8]:
        return np.array([[[index // 256, index % 256, sign]]], np.uint8)

    return Domain(name, tuple(map(str, range(count))), np.arange(count) % classes, load)


def protocol(setting: Setting = "reset", **changes: Any) -> Protocol:
    return replace(Protocol("imagenet-c", setting, (5,), "all", (2000,), 64, "all"), **changes)


def shown(segment: Segment, size: int = 64, start: int = 0) -> list[tuple[str, int, int]]:
    """Name of the domain, index and label of every image, in the order of the stream."""
    seen: list[tuple[str, int, int]] = []
    for batch in segment.batches(size, start):
        index = batch.images[:, 0, 0, 0].astype(int) * 256 + batch.images[:, 0, 0, 1]
        for member, number, label, sign in zip(
            batch.members, index, batch.labels, batch.images[:, 0, 0, 2], strict=True
        ):
            name = segment.domains[member].name
            assert sum(name.encode()) % 256 == sign, "the image belongs to another domain"
            seen.append((name, int(number), int(label)))
    return seen


# --- orders ---


@pytest.mark.parametrize("count", [1, 2, 17, 5000])
def test_order_is_a_fixed_permutation(count: int) -> None:
    order = shuffle_order(count, "fog", 2000)
    assert sorted(order.tolist()) == list(range(count))
    np.testing.assert_array_equal(order, shuffle_order(count, "fog", 2000))


def test_order_depends_on_seed_name_and_round() -> None:
    orders = [
        shuffle_order(100, *key).tolist() for key in (("fog", 1), ("fog", 2), ("snow", 1), ("fog", 1, 2))
    ]
    assert all(left != right for i, left in enumerate(orders) for right in orders[:i])
    assert orders[0] == shuffle_order(100, "fog", 1, 1).tolist()


def test_orders_are_pinned() -> None:
    """Published results must stay repeatable: these must not change between versions."""
    assert shuffle_order(10, "fog", 2000).tolist() == PINNED
    assert shuffle_order(10, "fog", 2000, 2).tolist() == PINNED_SECOND_ROUND
    assert len({tuple(shuffle_order(10, "fog", seed)) for seed in range(50)}) == 50


def test_the_callers_random_state_is_left_alone() -> None:
    np.random.seed(3)
    expected = np.random.random(4)
    np.random.seed(3)
    shuffle_order(10, "fog", 1)
    order_by_class(domain(), 1, 0.5)
    assert np.random.random(4).tolist() == expected.tolist()


def test_by_class_is_sorted_and_shuffled_within() -> None:
    order = order_by_class(domain(200), 2000)
    assert sorted(order.tolist()) == list(range(200))
    labels = domain(200).labels[order]
    assert labels.tolist() == sorted(labels.tolist())
    assert order[:20].tolist() != sorted(order[:20].tolist())


def runs_of_one_class(concentration: float | None) -> float:
    """Share of neighbours in the stream that are of the same class."""
    many = domain(5000)
    order = order_by_class(many, 7, concentration)
    assert sorted(order.tolist()) == list(range(5000))
    labels = many.labels[order]
    return float(np.mean(labels[1:] == labels[:-1]))


def test_concentration_goes_from_sorted_to_no_shift() -> None:
    pure = [runs_of_one_class(c) for c in (None, 0.01, 0.1, 1.0, 1e6)]
    assert pure == sorted(pure, reverse=True)
    assert pure[0] == pytest.approx(1 - 9 / 4999)
    assert pure[-1] == pytest.approx(0.1, abs=0.02)  # ten classes, at random
    # Two of a slot are of one class with probability Σ E[p²]·K = K (δ + 1) / (K (Kδ + 1)) for shares p ~
    # Dir(δ) of one class over K slots, if all slots were as long: (δ + 1) / (Kδ + 1).
    assert pure[3] == pytest.approx((1 + 1) / (10 + 1), abs=0.06)


# --- settings ---


@pytest.mark.parametrize(
    ("setting", "forget"), [("reset", True), ("continual", False), ("rounds", False), ("label_shift", True)]
)
def test_domain_by_domain(setting: Setting, forget: bool) -> None:
    three = [domain(70, name) for name in ("fog", "snow", CLEAN)]
    stream = plan_segments(three, protocol(setting), 2000)
    assert [segment.domains for segment in stream] == [(each,) for each in three]
    assert [segment.forget for segment in stream] == [forget] * 3
    for segment, each in zip(stream, three, strict=True):
        order = order_by_class(each, 2000) if setting == "label_shift" else shuffle_order(70, each.name, 2000)
        assert shown(segment) == [(each.name, i, i % 10) for i in order]


def test_rounds_repeat_the_domains_in_other_orders() -> None:
    three = [domain(40, name) for name in ("fog", "snow", "frost")]
    stream = plan_segments(three, protocol("rounds", rounds=4), 2000)
    assert [(s.domains[0].name, s.round) for s in stream] == [
        (name, turn) for turn in (1, 2, 3, 4) for name in ("fog", "snow", "frost")
    ]
    fog = [shown(segment) for segment in stream[::3]]
    assert all(sorted(each) == sorted(fog[0]) for each in fog)
    assert len({tuple(each) for each in fog}) == 4
    assert not any(segment.forget for segment in stream)


def test_rounds_end_with_clean_images() -> None:
    """Between the rounds they would change what the method has learnt."""
    stream = plan_segments([domain(9, "fog"), domain(9, CLEAN)], protocol("rounds", rounds=3), 2000)
    assert [(s.domains[0].name, s.round) for s in stream] == [("fog", 1), ("fog", 2), ("fog", 3), (CLEAN, 3)]


def test_mixed_is_one_stream_of_all_with_clean_at_the_end() -> None:
    parts = [domain(50, "fog"), domain(30, CLEAN), domain(100, "snow"), domain(7, "frost")]
    mixed, clean = plan_segments(parts, protocol("mixed"), 2000)
    assert [each.name for each in mixed.domains] == ["fog", "snow", "frost"]
    assert (mixed.forget, clean.forget) == (True, False)
    seen = shown(mixed, 32)
    assert len(seen) == len(mixed) == 157
    assert Counter(name for name, *_ in seen) == {"fog": 50, "snow": 100, "frost": 7}
    assert len(set(seen)) == 157
    assert all(label == index % 10 for _, index, label in seen)
    first = Counter(name for name, *_ in seen[:32])
    assert len(first) >= 2, "not mixed"
    assert {name for name, *_ in shown(clean)} == {CLEAN}
    assert plan_segments(parts, protocol("mixed"), 2001)[0].order().tolist() != mixed.order().tolist()
    (alone,) = plan_segments([domain(9, CLEAN)], protocol("mixed"), 2000)
    assert alone.forget


@pytest.mark.parametrize("start", [0, 1, 3])
def test_a_segment_can_begin_at_any_batch(start: int) -> None:
    segment = plan_segments([domain(30, "fog"), domain(33, "snow")], protocol("mixed"), 1)[0]
    assert shown(segment, 16, start) == shown(segment, 16)[16 * start :]


@pytest.mark.parametrize(
    ("setting", "images", "batches", "last"),
    [
        ("reset", 50_000, 782, 16),  # FOA, and FOZO without continual adaptation
        ("continual", 5_000, 79, 8),  # FOZO
        ("rounds", 50_000, 782, 16),  # ZOA: ten rounds of these
        ("label_shift", 50_000, 782, 16),
        ("mixed", 1_000, 235, 24),  # 15 domains in one
        ("reset", 30_000, 469, 48),  # ImageNet-R
    ],
)
def test_published_numbers_of_batches(setting: Setting, images: int, batches: int, last: int) -> None:
    names = IMAGENET_C if setting == "mixed" else ("fog",)
    stream = plan_segments([domain(images, name) for name in names], protocol(setting, rounds=1), 2000)
    sizes = [len(batch.labels) for batch in stream[0].batches(64)]
    assert len(stream) == 1
    assert sizes == [64] * (batches - 1) + [last]


def test_order_of_the_corruptions_is_that_of_the_papers() -> None:
    assert len(IMAGENET_C) == 15
    assert IMAGENET_C[::7] == ("gaussian_noise", "snow", "jpeg_compression")


# --- in words ---


@pytest.mark.parametrize("setting", SETTINGS)
def test_protocol_describes_itself(setting: Setting) -> None:
    text = protocol(setting).describe()
    for word in ("imagenet-c", "severity 5", setting, "all", "64", "seed 2000"):
        assert word in text


def test_protocol_describes_what_is_special() -> None:
    assert "severity" not in protocol(severities=()).describe()
    assert "severities 1+2" in protocol(severities=(1, 2)).describe()
    assert "seeds 1+2+3" in protocol(seeds=(1, 2, 3)).describe()
    assert "rounds (10)" in protocol("rounds", rounds=10).describe()
    assert "label_shift (Dirichlet 0.1)" in protocol("label_shift", concentration=0.1).describe()
    assert "200 of the data set" in protocol(classes="200 of the data set").describe()
