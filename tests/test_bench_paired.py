"""Paired differences of accuracy with intervals (bench/paired.py)."""

from __future__ import annotations

import math
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from doubles import load_script
from fozo.eval.results.bits import Bits
from fozo.eval.results.metrics import Tally
from fozo.eval.results.outcome import DomainResult, MethodResult, Run, Trace
from fozo.evaluation import shuffle_order
from numpy.typing import NDArray

IMAGES = 400


@pytest.fixture(scope="module")
def paired() -> ModuleType:
    return load_script(Path(__file__).resolve().parent.parent / "bench" / "paired.py")


def make_run(right: dict[str, dict[str, NDArray[np.bool_]]], seed: int = 7) -> Run:
    """Return a run whose images were right or wrong as given by domain and method, in the data's order."""
    domains = []
    for name, methods in right.items():
        results = {}
        for label, flags in methods.items():
            order = shuffle_order(len(flags), name, seed)
            results[label] = MethodResult(Tally(images=len(flags)), Bits(flags[order]))
        domains.append(DomainResult(name, results, images=IMAGES, ids_sha256="a", complete=True))
    labels = next(iter(right.values()))
    return Run(seed, domains, {label: Trace() for label in labels}, complete=True)


def draw(share: float, seed: int) -> NDArray[np.bool_]:
    return np.asarray(np.random.default_rng(seed).random(IMAGES) < share)


def test_the_interval_is_that_of_a_mean_of_independent_images(paired: ModuleType) -> None:
    first, second = draw(0.5, 0), draw(0.7, 1)
    run = make_run({"noise": {"a": first, "b": second}, "clean": {"a": first, "b": first}})
    difference = paired.compare((run, "a"), (run, "b"))
    values = 100.0 * (second.astype(float) - first)
    half = 1.96 * values.std() / math.sqrt(IMAGES)
    assert difference.mean == pytest.approx(values.mean())
    assert difference.low == pytest.approx(values.mean() - half, abs=0.35)
    assert difference.high == pytest.approx(values.mean() + half, abs=0.35)


def test_an_image_counts_once_however_many_corruptions_it_has(paired: ModuleType) -> None:
    """The same outcome in every domain says no more than in one; independent outcomes do."""
    first, second = draw(0.5, 0), draw(0.6, 1)
    once = make_run({"noise": {"a": first, "b": second}})
    thrice = make_run({name: {"a": first, "b": second} for name in ("noise", "snow", "blur")})
    assert paired.compare((once, "a"), (once, "b")) == paired.compare((thrice, "a"), (thrice, "b"))
    many = make_run(
        {f"noise{i}": {"a": draw(0.5, 10 + i), "b": draw(0.6, 20 + i)} for i in range(4)}
        | {"clean": {}}
        | {"clean": {"a": first, "b": second}}
    )
    one, four = paired.compare((once, "a"), (once, "b")), paired.compare((many, "a"), (many, "b"))
    assert (four.high - four.low) / (one.high - one.low) == pytest.approx(0.5, abs=0.06)


def test_runs_of_other_seeds_are_aligned_by_image(paired: ModuleType) -> None:
    right = draw(0.5, 0)
    first, second = make_run({"noise": {"a": right}}, seed=1), make_run({"noise": {"b": right}}, seed=2)
    difference = paired.compare((first, "a"), (second, "b"))
    assert (difference.mean, difference.low, difference.high) == (0, 0, 0)


def test_clean_images_are_apart(paired: ModuleType) -> None:
    right, wrong = np.ones(IMAGES, bool), np.zeros(IMAGES, bool)
    run = make_run({"noise": {"a": right, "b": right}, "clean": {"a": right, "b": wrong}})
    assert str(paired.compare((run, "a"), (run, "b"))) == "+0.0 (+0.0 to +0.0)"
    assert str(paired.compare((run, "a"), (run, "b"), clean=True)) == "-100.0 (-100.0 to -100.0)"


def test_other_images_are_an_error(paired: ModuleType) -> None:
    first, second = make_run({"noise": {"a": draw(0.5, 0)}}), make_run({"noise": {"a": draw(0.5, 0)}})
    second.domains[0].ids_sha256 = "b"
    with pytest.raises(ValueError, match="same images"):
        paired.compare((first, "a"), (second, "a"))
