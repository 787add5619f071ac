"""Accuracy and calibration against NumPy in one go, and the vector of docs/specification.md §12.6."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
from fozo.engine.model import FloatArray
from fozo.engine.records import RecordError, load_record, to_dict
from fozo.eval.results.bits import Bits
from fozo.eval.results.metrics import ECE_BINS, Tally
from fozo.eval.results.outcome import MethodResult
from numpy.typing import NDArray

CONFIDENCE = np.array([0.05, 0.2, 1 / 3, 0.4, 0.6, 0.61, 0.95, 1])
CORRECT = np.array([0, 0, 1, 0, 1, 0, 1, 1], bool)


def naive_ece(confidence: FloatArray, correct: NDArray[np.bool_]) -> float:
    """docs/specification.md §1.6, written out: a sample is in a bin if low < confidence <= high."""
    edges, total = np.linspace(0, 1, 16), 0.0
    for low, high in pairwise(edges):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            total += inside.mean() * abs(confidence[inside].mean() - correct[inside].mean())
    return float(total)


def softmax(logits: FloatArray) -> FloatArray:
    powers = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    result: FloatArray = powers / powers.sum(1, keepdims=True)
    return result


def test_ece_vector() -> None:
    tally = Tally()
    tally.add_confidences(CONFIDENCE, CORRECT)
    assert tally.ece == pytest.approx(0.2970833333, abs=1e-9)
    assert tally.ece == pytest.approx(naive_ece(CONFIDENCE, CORRECT), abs=1e-12)


def test_an_edge_belongs_to_the_lower_bin() -> None:
    edges = np.linspace(0, 1, ECE_BINS + 1)
    for index in range(1, ECE_BINS + 1):
        tally = Tally()
        above = np.nextafter(edges[index], 2)
        tally.add_confidences(np.array([edges[index]]), np.array([True]))
        assert tally.bin_images[index - 1] == 1
        if index < ECE_BINS:
            tally.add_confidences(np.array([above]), np.array([True]))
            assert tally.bin_images[index] == 1


@pytest.mark.parametrize("share", [0.2, 0.25, 0.5, 1.0])
def test_a_calibrated_constant_has_no_error(share: float) -> None:
    tally = Tally()
    correct = np.arange(100) < 100 * share
    tally.add_confidences(np.full(100, share), correct)
    assert tally.ece == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("classes", [1, 2, 4, 5, 6, 30, 1000])
@pytest.mark.parametrize("batch", [1, 7, 64, 500])
def test_counts_are_those_of_everything_at_once(classes: int, batch: int) -> None:
    generator = np.random.default_rng(classes)
    logits = generator.normal(0, 3, (500, classes)).astype(np.float32)
    labels = generator.integers(0, classes, 500)
    logits[np.arange(500), labels] += 2
    tally = Tally()
    for start in range(0, 500, batch):
        tally.add(logits[start : start + batch], labels[start : start + batch])
    rank = (logits > logits[np.arange(500), labels][:, None]).sum(1)
    probabilities = softmax(logits)
    assert tally.images == 500
    assert tally.top1 == (rank < 1).sum()
    assert tally.top5 == (rank < 5).sum()
    assert tally.accuracy == pytest.approx((rank < 1).mean())
    assert tally.top5_accuracy == pytest.approx((rank < 5).mean())
    assert tally.ece == pytest.approx(naive_ece(probabilities.max(1), rank < 1), abs=1e-6)
    assert tally.bin_images.sum() == 500
    assert tally.bin_correct.sum() == tally.top1
    assert tally.mean_nll == pytest.approx(-np.log(probabilities[np.arange(500), labels]).mean())
    record = MethodResult(tally, Bits(rank < 1)).to_record(gained=0, lost=0)
    data = json.loads(json.dumps(to_dict(record)))
    again = load_record(MethodResult, data, "data")
    assert to_dict(again.to_record(gained=0, lost=0)) == data
    again.tally.add(logits, labels)
    assert again.tally.images == 1000


def test_which_are_right_is_returned() -> None:
    right = Tally().add(np.eye(3, dtype=np.float32), np.array([0, 2, 2]))
    assert right.tolist() == [True, False, True]


def test_counts_that_were_tampered_with() -> None:
    content = to_dict(MethodResult().to_record(gained=0, lost=0))
    content["bins"]["images"].pop()
    with pytest.raises(
        RecordError, match=r"^data: bins: expected 15 values in each list, found \[14, 15, 15\]$"
    ):
        load_record(MethodResult, content, "data")


def test_top5_of_few_classes_is_everything() -> None:
    tally = Tally()
    tally.add(np.tile(np.float32([4, 3, 2, 1]), (3, 1)), np.array([0, 1, 3]))
    assert (tally.top1, tally.top5) == (1, 3)


def test_equal_logits_do_not_make_every_label_right() -> None:
    tally = Tally()
    logits = np.zeros((1000, 1000), np.float32)
    logits[:, 999] = -1  # all others are equal: the first ones are predicted
    tally.add(logits, np.arange(1000))
    assert (tally.top1, tally.top5) == (1, 5)


def test_logits_of_great_magnitude() -> None:
    tally = Tally()
    tally.add(np.array([[1e4, -1e4, 0]], np.float32), np.array([0]))
    assert tally.top1 == 1
    assert tally.ece == 0
    tally.add(np.array([[1e4, -1e4, 0]], np.float32), np.array([1]))
    assert tally.nll == pytest.approx(2e4)  # finite, though the probability is 0


def test_arguments_are_not_changed() -> None:
    logits = np.random.default_rng(0).normal(size=(8, 6)).astype(np.float32)
    labels = np.arange(8) % 6
    before = logits.copy(), labels.copy()
    Tally().add(logits, labels)
    np.testing.assert_array_equal(logits, before[0])
    np.testing.assert_array_equal(labels, before[1])


def test_an_empty_tally_is_zero() -> None:
    tally = Tally()
    assert (tally.accuracy, tally.top5_accuracy, tally.ece) == (0, 0, 0)
    other = Tally()
    other.add_confidences(CONFIDENCE, CORRECT)
    assert tally.bin_images.sum() == 0


def test_an_image_without_an_answer_is_wrong_whatever_its_label_is() -> None:
    """Zeros stand for an output that was not finite; class 0 must not gain from them."""
    tally = Tally()
    logits = np.zeros((3, 10), np.float32)
    logits[2, 4] = 1
    assert tally.add(logits, np.array([0, 3, 4])).tolist() == [False, False, True]
    assert (tally.images, tally.top1, tally.top5) == (3, 1, 1)
