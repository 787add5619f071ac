"""Macro-F1 against scikit-learn, and against precision and recall of every class."""

from __future__ import annotations

import json

import numpy as np
import pytest
from fozo.engine.records import RecordError, load_record, to_dict
from fozo.eval.results.average import compute_averages
from fozo.eval.results.bits import Bits
from fozo.eval.results.class_counts import ClassCounts
from fozo.eval.results.metrics import Tally
from fozo.eval.results.outcome import DomainResult, MethodResult, Run, Trace
from metric_doubles import compute_macro_f1


@pytest.mark.parametrize("classes", [1, 2, 5, 30])
@pytest.mark.parametrize("batch", [1, 7, 200])
def test_macro_f1_is_that_of_scikit_learn(classes: int, batch: int) -> None:
    """Rare classes, and with 30 also classes without images that others are taken for."""
    f1_score = pytest.importorskip("sklearn.metrics").f1_score
    generator = np.random.default_rng(classes)
    labels = np.minimum(generator.geometric(0.3, 200) - 1, max(0, classes - 2))
    logits = generator.normal(size=(200, classes)).astype(np.float32)
    logits[np.arange(200), labels] += 1
    tally = Tally(classes=ClassCounts())
    for start in range(0, 200, batch):
        tally.add(logits[start : start + batch], labels[start : start + batch])
    predictions = logits.argmax(1)
    expected = f1_score(labels, predictions, average="macro", labels=np.unique(labels))
    assert tally.macro_f1 == pytest.approx(expected, rel=1e-12)
    assert tally.macro_f1 == pytest.approx(compute_macro_f1(labels, predictions), rel=1e-12)


def test_by_hand() -> None:
    """Class 0: 3 right of 5, 3 taken for it. Class 1: 1 right of 1, 2 taken for it. Class 2 has no images."""
    tally = Tally(classes=ClassCounts())
    logits = np.eye(3, dtype=np.float32)[[0, 0, 1, 1, 2, 0]]
    tally.add(logits, np.array([0, 0, 0, 1, 0, 0]))
    assert tally.macro_f1 == pytest.approx((2 * 3 / (5 + 3) + 2 * 1 / (1 + 2)) / 2)


def test_images_without_an_answer_are_of_no_class() -> None:
    tally = Tally(classes=ClassCounts())
    logits = np.zeros((4, 3), np.float32)
    logits[2:, [1, 0]] = np.eye(2)
    labels = np.array([0, 0, 1, 0])
    tally.add(logits, labels)
    assert tally.macro_f1 == pytest.approx(compute_macro_f1(labels, np.array([-1, -1, 1, 0])))


def test_nothing_is_counted_unless_asked_for() -> None:
    tally = Tally()
    tally.add(np.eye(3, dtype=np.float32), np.arange(3))
    assert tally.classes is None and tally.macro_f1 is None
    assert Tally(classes=ClassCounts()).macro_f1 == 0.0


def test_counts_survive_a_results_file() -> None:
    result = MethodResult.count_nothing(by_class=True)
    generator = np.random.default_rng(0)
    logits, labels = generator.normal(size=(50, 4)).astype(np.float32), generator.integers(0, 4, 50)
    result.add(logits, labels)
    data = json.loads(json.dumps(to_dict(result.to_record(gained=0, lost=0))))
    again = load_record(MethodResult, data, "data")
    again.add(logits, labels)
    result.add(logits, labels)
    assert to_dict(again.to_record(gained=0, lost=0)) == to_dict(result.to_record(gained=0, lost=0))
    assert again.tally.macro_f1 == result.tally.macro_f1 == data["macro_f1"]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("correct", [1], r"by_class: expected lists of equal length, found lengths \[2, 2, 1\]"),
        ("correct", [4, 0], "by_class: expected from 0 to 3 correct images of class 0, found 4"),
        ("predicted", [0, 4], "by_class: expected from 0 to 0 correct images of class 0, found 2"),
    ],
)
def test_counts_that_were_tampered_with(name: str, value: list[int], message: str) -> None:
    counts = ClassCounts(np.array([3, 1]), np.array([3, 1]), np.array([2, 0]))
    content = to_dict(MethodResult(Tally(4, 2, 4, classes=counts), Bits([1, 1, 0, 0])).to_record(0, 0))
    content["by_class"][name] = value
    with pytest.raises(RecordError, match=message):
        load_record(MethodResult, content, "data")


def make_run(seed: int, *macro_f1s: float | None) -> Run:
    """Return a run whose domains have two classes, of which one is told with a given F1."""
    domains = []
    for number, value in enumerate(macro_f1s):
        classes = None
        if value is not None:  # F1 of a class: 2 · right / (100 + 100)
            right = round(100 * value)
            classes = ClassCounts(np.array([100]), np.array([100]), np.array([right]))
        result = MethodResult(Tally(100, 50, 100, classes=classes), Bits([1] * 50 + [0] * 50), 1)
        domains.append(DomainResult(str(number), {"m": result}, complete=True))
    return Run(seed, domains, {"m": Trace()}, complete=True)


def test_averages_over_domains_and_seeds() -> None:
    averages = compute_averages([make_run(1, 0.5, 0.7), make_run(2, 0.1, 0.3)])["m"]
    assert averages.macro_f1 == pytest.approx(0.4)
    assert averages.macro_f1_std == averages.get_spread("macro_f1") == pytest.approx(0.4 / 2**0.5)


def test_a_mean_over_other_domains_is_none() -> None:
    assert compute_averages([make_run(1, 0.5, None)])["m"].macro_f1 is None
    assert compute_averages([make_run(1, None)])["m"].macro_f1_std is None
