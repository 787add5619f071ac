"""Comparisons of two graphs against the same arithmetic in NumPy."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from fozo.engine.model import ImageArray, Outputs
from quant_doubles import check_comparison

onnx = pytest.importorskip("onnx", reason="quantisation reads and writes graphs with onnx")

from fozo.quant import graph_comparison  # noqa: E402
from fozo.quant.graph_comparison import compare, measure_relative_time  # noqa: E402


def outputs(generator: np.random.Generator, count: int) -> Outputs:
    values = generator.normal(size=(count, 3, 8)).astype(np.float32)
    return Outputs(generator.normal(size=(count, 5)).astype(np.float32), values)


def noisy(generator: np.random.Generator, found: Outputs) -> Outputs:
    shifted = (
        (v + generator.normal(0, 0.3, v.shape)).astype(np.float32) for v in (found.logits, found.features)
    )
    return Outputs(*shifted)


@pytest.mark.parametrize("sizes", [(40,), (16, 16, 8), (1,) * 40])
@pytest.mark.parametrize("labelled", [True, False])
def test_comparison_is_that_of_all_images_at_once(sizes: Sequence[int], labelled: bool) -> None:
    generator = np.random.default_rng(0)
    reference = outputs(generator, 40)
    ours = noisy(generator, reference)
    labels = generator.integers(0, 5, 40) if labelled else None
    edges = np.cumsum([0, *sizes])
    parts = [slice(a, b) for a, b in pairwise(edges)]
    batches = (
        tuple(Outputs(each.logits[part], each.features[part]) for each in (ours, reference)) for part in parts
    )
    check_comparison(compare(batches, labels), ours, reference, labels)  # type: ignore[arg-type]


def test_comparison_with_itself_and_with_zeros() -> None:
    same = outputs(np.random.default_rng(0), 6)
    found = compare([(same, same)])
    assert (found.agreement, found.max_abs_difference) == (100, 0)
    assert found.cosine_features == pytest.approx(1)
    assert 100 < found.signal_to_noise < math.inf  # JSON has no infinity
    zero = Outputs(np.zeros_like(same.logits), np.zeros_like(same.features))
    assert compare([(zero, same)]).cosine_features == 0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["logits", "features"])
@pytest.mark.parametrize("image", [0, 11])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_value_that_is_not_finite_is_never_forgotten(value: float, where: str, image: int) -> None:
    """Python's max(0.0, nan) is 0.0: a broken graph would look like an exact one."""
    reference = outputs(np.random.default_rng(0), 12)
    broken = Outputs(reference.logits.copy(), reference.features.copy())
    getattr(broken, where)[image, 1] = value
    batches = [
        tuple(Outputs(each.logits[part], each.features[part]) for each in (broken, reference))
        for part in (slice(0, 4), slice(4, 8), slice(8, 12))
    ]
    found = compare(batches)  # type: ignore[arg-type]
    assert not found.is_finite
    assert not math.isfinite(found.max_abs_difference)
    assert compare([(reference, reference)]).is_finite


def test_relative_time_is_a_median_of_rounds_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, called = [0.0], []

    def network(name: str, seconds: Iterator[float]) -> Any:
        def run(images: ImageArray) -> None:
            called.append(name)
            clock[0] += next(seconds)

        return run

    monkeypatch.setattr(graph_comparison.time, "perf_counter", lambda: clock[0])
    ours = network("ours", iter([100, 2, 4, 9]))
    theirs = network("theirs", iter([1, 4, 4, 90]))
    seconds, ratio = measure_relative_time(ours, theirs, np.zeros((8, 1, 1, 3), np.uint8), rounds=3)
    assert seconds == pytest.approx(4 / 8)
    assert ratio == pytest.approx(0.5)
    assert called == ["ours", "theirs"] * 4
