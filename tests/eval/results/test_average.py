"""Averages over domains and seeds, how far a difference can be trusted, and tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fozo.eval.datasets.corruption_names import CLEAN, IMAGENET_C
from fozo.eval.protocol import Protocol, Setting
from fozo.eval.results import table
from fozo.eval.results.average import (
    ALEXNET,
    compute_averages,
    compute_gain,
    compute_mean_corruption_error,
    is_noise,
)
from fozo.eval.results.bits import Bits
from fozo.eval.results.outcome import DomainResult, MethodResult, Run, Trace


def protocol(setting: Setting = "reset", **changes: Any) -> Protocol:
    return replace(Protocol("imagenet-c", setting, (5,), "all", (2000,), 64, "all"), **changes)


# --- averages and noise ---


def result(name: str = "fog", images: int = 100, complete: bool = True, **correct: int) -> DomainResult:
    """Return a result of a domain with the number of right answers of each method."""
    methods = {}
    for label, count in correct.items():
        part = MethodResult(batches=1, forwards=1, seconds=1.0)
        logits = np.zeros((images, 10), np.float32)
        logits[:count, 0] = logits[count:, 1] = 3
        part.right.append(part.tally.add(logits, np.zeros(images, np.int64)))
        methods[label] = part
    return DomainResult(name, methods, 5, images=images, complete=complete)


def run_of(*domains: DomainResult, seed: int = 0) -> Run:
    return Run(seed, list(domains), {label: Trace() for label in domains[0].methods}, complete=True)


def test_averages_are_unweighted_and_without_clean() -> None:
    run = run_of(result(images=640, a=640), result("snow", images=10, a=5), result(CLEAN, a=0))
    found = compute_averages([run])["a"]
    assert found.accuracy == 0.75
    assert found.accuracy_std is None
    assert found.images_per_second == pytest.approx(750 / 3)
    assert compute_averages([run_of(result(CLEAN, a=40))])["a"].accuracy == 0.4
    half = run_of(result(a=60), result("snow", a=20, complete=False))
    assert compute_averages([half])["a"].accuracy == 0.6
    assert compute_averages([]) == compute_averages([Run(0, [], {})]) == {}


def test_averages_over_seeds() -> None:
    runs = [run_of(result(a=count, b=count + 10), seed=count) for count in (50, 60, 70)]
    found = compute_averages(runs)
    assert found["a"].accuracy == pytest.approx(0.6)
    assert found["a"].accuracy_std == pytest.approx(0.1)
    assert found["a"].gain is None


@pytest.mark.parametrize(("runs", "worst"), [(9, None), (10, 0.50), (11, 0.505), (20, 0.505), (21, 0.51)])
def test_the_worst_tenth_of_the_runs(runs: int, worst: float | None) -> None:
    """The mean of the ⌈runs / 10⌉ smallest accuracies, which here are 0.50, 0.51 and on."""
    counts = list(range(50, 50 + runs))
    reordered = [*counts[1::2], *counts[::2]]
    found = compute_averages([run_of(result(a=count), seed=count) for count in reordered])["a"]
    assert found.worst_accuracy == (None if worst is None else pytest.approx(worst))
    summary = table.format_summary([run_of(result(a=count), seed=count) for count in counts])
    assert ("worst tenth" in summary) == (worst is not None)


def compared(gained: int, lost: int, images: int = 100, **facts: Any) -> DomainResult:
    """Two methods, of which b got so many images right that a did not, and the other way round."""
    each = replace(result(images=images, a=lost, b=gained), **facts)
    each.methods["b"].right = Bits([lost <= index < lost + gained for index in range(images)])
    return each


def difference_of(gained: int, lost: int, images: int = 100) -> tuple[float, float]:
    return compute_gain(compared(gained, lost, images), "b")


def test_a_difference_and_its_error() -> None:
    """Of a paired difference per image, in {-1, 0, 1}, image by image; one more on either side."""
    gain, error = difference_of(12, 5)
    assert gain == pytest.approx(np.mean([1] * 12 + [-1] * 5 + [0] * 83))
    squares = np.array([1] * 13 + [1] * 6 + [0] * 81)
    assert error == pytest.approx(np.sqrt((squares.mean() - gain**2) / 100))
    gain, error = compute_gain(DomainResult("fog", {"a": MethodResult()}), "a")
    assert gain == 0 and error > 0


def test_noise_is_what_an_exact_test_says() -> None:
    """Against McNemar's exact test, the binomial one on images where just one method is right."""
    for total in range(1, 60):
        for lost in range(total // 2 + 1):
            tail = sum(math.comb(total, k) for k in range(lost + 1)) / 2**total
            noise = is_noise(*difference_of(total - lost, lost, 10_000))
            if min(1, 2 * tail) > 0.08:
                assert noise, (total, lost)
            if 2 * tail < 0.03:
                assert not noise, (total, lost)


def test_a_gain_that_differs_from_seed_to_seed_is_noise() -> None:
    def runs(gains: Sequence[int]) -> list[Run]:
        return [run_of(compared(max(g, 0), max(-g, 0)), seed=seed) for seed, g in enumerate(gains)]

    steady, shaky = compute_averages(runs([20, 20, 20]))["b"], compute_averages(runs([40, -10, 30]))["b"]
    assert steady.gain == shaky.gain == pytest.approx(0.2)
    assert not steady.gain_is_noise
    assert shaky.gain_is_noise
    # Student's t for two degrees of freedom is 4.303, where the table's mark counts 1.96 errors.
    expected = np.std([0.4, -0.1, 0.3], ddof=1) / np.sqrt(3) * 4.303 / 1.96
    assert shaky.gain_error == pytest.approx(expected)


def test_more_seeds_on_the_same_images_make_a_gain_no_surer() -> None:
    def error(*hashes: str) -> float:
        runs = [run_of(compared(20, 0, ids_sha256=each), seed=seed) for seed, each in enumerate(hashes)]
        return float(compute_averages(runs)["b"].gain_error)

    assert error("x", "x", "x") == pytest.approx(error("x"))
    assert error("x", "y", "z", "u") == pytest.approx(error("x") / 2)


def test_rounds_over_the_same_images_make_a_gain_no_surer() -> None:
    """Three rounds with the same outcome say as much as one; three corruptions say more."""

    def error(*names: str) -> float:
        domains = [compared(20, 0, name=name) for name in names]
        found = compute_averages([run_of(*domains)])["b"]
        assert found.gain == pytest.approx(0.2)
        return float(found.gain_error)

    alone = np.sqrt((0.22 - 0.2**2) / 100)
    assert error("fog") == pytest.approx(alone)
    assert error("fog", "fog", "fog") == pytest.approx(alone)
    assert error("fog", "snow", "frost") == pytest.approx(alone / np.sqrt(3))


def test_an_interrupted_seed_does_not_enter_the_averages() -> None:
    runs = [run_of(result(a=50)), run_of(result(a=70)), replace(run_of(result(a=0)), complete=False)]
    assert compute_averages(runs)["a"].accuracy == pytest.approx(0.6)
    assert compute_averages(runs[2:])["a"].accuracy == 0


def corrupted(skip: tuple[str, int] | None = None, **changes: Any) -> list[Run]:
    domains = [
        replace(
            result(name, images=1000, a=round(1000 - 10 * ALEXNET[name] / 2)),
            **{"severity": s, "benchmark": "imagenet-c", **changes},
        )
        for s in (1, 2, 3, 4, 5)
        for name in IMAGENET_C
        if (name, s) != skip
    ]
    return [run_of(*domains)]


def test_compute_mean_corruption_error() -> None:
    """A network with half of AlexNet's errors everywhere has an mCE of 50 %."""
    assert compute_mean_corruption_error(corrupted(), "a") == pytest.approx(50, abs=0.1)
    assert compute_averages(corrupted())["a"].mce == pytest.approx(50, abs=0.1)


@pytest.mark.parametrize(
    "runs",
    [
        corrupted(("fog", 3)),
        corrupted(benchmark=None),
        corrupted(complete=False),
        corrupted(round=2),
        [run_of(result(a=1))],
    ],
)
def test_mean_corruption_error_is_not_always_defined(runs: list[Run]) -> None:
    assert compute_mean_corruption_error(runs, "a") is None


# --- tables ---


def test_rows_are_named_after_what_varies() -> None:
    one = result(a=1)
    assert table.format_domain_name(one, protocol()) == "fog"
    assert table.format_domain_name(one, protocol(severities=(4, 5))) == "fog 5"
    assert table.format_domain_name(replace(one, round=3), protocol("rounds", rounds=4)) == "fog #3"


def test_summary() -> None:
    text = table.format_summary(
        [run_of(result(base=50, better=90)), run_of(result(base=52, better=91), seed=1)]
    )
    heading, base, better, note = text.splitlines()
    assert "mCE" not in heading and "guarded" not in heading
    assert "51.00 ± 1.41" in base
    assert "90.50 ± 0.71" in better
    assert "statistically indistinguishable from base" in note
    assert len(table.format_summary([run_of(result(a=1))]).splitlines()) == 2
