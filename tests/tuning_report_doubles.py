"""Hand-made results of tunings for the tests of the report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from fozo.engine.records import to_dict
from fozo.eval.results.outcome import MethodResult
from fozo.eval.tuning.tuning_cost import TuningCost
from fozo.eval.tuning.tuning_presets import PRESETS
from fozo.eval.tuning.tuning_record import EvaluationRecord, TuningRecord
from numpy.typing import NDArray

PLAIN = "a photo of a {}."
TUNED = "tuned"
CLASSES = 4
Predictions = NDArray[np.int64]


def make_labels(images: int = 400) -> Predictions:
    """Return labels of some images; class 3 has none, so that it must not count."""
    return np.minimum(np.arange(images) % 5, 2)


def predict(rate: float, seed: int, images: int = 400) -> Predictions:
    """Return predictions of which about `rate` are right; the others may be of the class without images."""
    generator = np.random.default_rng([seed, round(1000 * rate)])
    wrong = generator.integers(0, CLASSES, images)
    return np.where(generator.random(images) < rate, make_labels(images), wrong)


def count(predictions: Predictions) -> MethodResult:
    """Return the counts of predictions, all of them with the same confidence."""
    result = MethodResult.count_nothing(by_class=True)
    result.add(np.eye(CLASSES, dtype=np.float32)[predictions] * 3, make_labels(len(predictions)))
    return result


def make_evaluation(
    prompts: Mapping[str, Predictions], target: str = "test", images: str = "pets"
) -> EvaluationRecord:
    """Return what a tuning measured: predictions by prompt, the plain template first."""
    counts = {prompt: count(predictions).to_tally_record() for prompt, predictions in prompts.items()}
    return EvaluationRecord(images, target, CLASSES, f"hash of {images} {target}", counts)


def make_tuning(
    seed: int, *evaluations: EvaluationRecord, method: str = "zip", **options: Any
) -> TuningRecord:
    """Return the results of a seed, with a loss that falls from `seed` to 0 over 20 calls in two steps."""
    facts = {
        "data": "pets",
        "classes": "all",
        "shots": 16,
        "precision": "fp32",
        "graph_sha256": "1" * 64,
        "text_sha256": "2" * 64,
        "images_sha256": f"{seed}" * 64,
        "versions": {"fozo": "9.8.7", "onnxruntime": "1.20"},
        **PRESETS.get(method, {}),
    }
    is_closed_form = method == "gda"
    return TuningRecord(
        schema=1,
        kind="tuning",
        created="2026-01-02T03:04:05+00:00",
        complete=True,
        seconds=10.0 + seed,
        bundle={"path": "clip", "sha256": f"{seed}" * 64, "model": "ViT-B-16"},
        head=f"{method}-{seed}",
        tuning={**facts, **options, "method": method, "seed": seed},
        cost=TuningCost(1, 0, 4, 64, False) if is_closed_form else TuningCost(2, 20, 80, 64, False),
        machine={"system": "Linux", "model": "A CPU", "int8_features": ["avx2"]},
        images=tuple(f"{number}.png" for number in range(64)),
        class_ids=tuple("abcd"),
        class_names=tuple("abcd"),
        curve={"loss": (float(seed),) if is_closed_form else (float(seed), 0.0)},
        evaluations=evaluations,
        harmonic_means={},
    )


def save_tuning(path: Path, record: TuningRecord) -> Path:
    """Write results of a seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(to_dict(record)), encoding="utf-8")
    return path


def save_seeds(
    folder: Path,
    rates: Mapping[int, float],
    *,
    plain: float = 0.5,
    name: str = "tuning",
    images: str = "pets",
    **options: Any,
) -> Path:
    """Write results of several seeds, given the rate of right answers of each, and what sums them up."""
    files = []
    for seed, rate in rates.items():
        prompts = {PLAIN: predict(plain, 0), TUNED: predict(rate, seed)}
        record = make_tuning(seed, make_evaluation(prompts, images=images), **options)
        files.append(save_tuning(folder / f"{name}-{seed}.json", record))
    runs = [{"seed": seed, "file": file.name} for seed, file in zip(rates, files, strict=True)]
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"schema": 1, "kind": "tuning-seeds", "runs": runs}), encoding="utf-8")
    return path
