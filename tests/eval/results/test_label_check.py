"""Accuracies at chance level on clean images: labels or order are probably wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_doubles import put
from fozo.eval.results.label_check import describe_chance
from fozo.eval.results.outcome import Run
from fozo.eval.streaming.experiment import prepare
from fozo.eval.streaming.spec import EvaluationSpec
from report_doubles import domain


def run_of(*domains: Any) -> list[Run]:
    return [Run(0, list(domains), {})]


def test_clean_images_at_chance_level_are_suspicious() -> None:
    text = describe_chance(run_of(domain("imagefolder", 6, 7)), 12)
    assert text is not None
    for part in ("clean images is 7.0 %", "12 classes gives 8.3 %", "--class-order", "fozo inspect"):
        assert part in text


@pytest.mark.parametrize(
    ("domains", "classes"),
    [
        ([domain("imagefolder", 60, 61)], 12),
        ([domain("imagefolder", 6, 61)], 12),  # one method works, so the labels are right
        ([domain("imagefolder", 0, 1, images=10)], 12),  # too few images
        ([domain("imagenet-a", 0, 1)], 200),  # collected because models err on it
        ([domain("fog", 5, 8, severity=5), domain("clean", 70, 71)], 12),
        ([domain("fog", 5, 8, severity=5), domain("snow", 70, 60, severity=5)], 12),
        ([domain("imagefolder", 100, 98)], 1),
        ([], 12),
    ],
)
def test_what_is_not_suspicious(domains: list[Any], classes: int) -> None:
    assert describe_chance(run_of(*domains), classes) is None


def test_all_corruptions_at_chance_level_are_suspicious_without_clean_images() -> None:
    text = describe_chance(run_of(domain("fog", 5, 8, severity=5), domain("snow", 9, 8, severity=5)), 12)
    assert text is not None and "the images of all corruptions" in text


def test_one_colour_is_at_chance_level(tmp_path: Path, bundle_path: Path) -> None:
    """Pictures of one colour, as of damaged downloads, all get one class, and the run says so."""
    for number in range(20):
        for image in range(2):
            put(tmp_path / chr(97 + number) / f"{image}.png", np.full((40, 40, 3), 127, np.uint8))
    spec = EvaluationSpec.from_options(bundle_path, ["no_adapt"], "imagefolder", data=tmp_path)
    experiment = prepare(spec)
    with experiment.method_networks:
        for _ in experiment.run():
            pass
        text = describe_chance(experiment.runs, experiment.network.info.classes)
    assert text is not None and "guessing among 20 classes gives 5.0 %" in text
    facts = experiment.results.bundle
    assert facts["classes"] == 20
    assert facts["preprocessing"]["size"] == [32, 32]
