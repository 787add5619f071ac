"""Counts and rates of tunings as rows: one per file, set of test images and prompt."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ....engine.bundle.origin import describe_preparation
from ...results.outcome import DomainResult, MethodResult
from ...tuning.tuning_evaluation import TUNED
from .count_rows import list_rates
from .tuning_sources import Tuning, TuningSource


def list_tuning_rows(tuning: Tuning) -> Iterator[dict[str, Any]]:
    """Yield a row per seed, set of test images and prompt, by name of the column."""
    for source in tuning.sources:
        facts = _describe_run(source)
        for evaluation in source.record.evaluations:
            methods = {
                prompt: MethodResult.from_tally_record(counts)
                for prompt, counts in evaluation.prompts.items()
            }
            domain = DomainResult(evaluation.images, methods)
            for prompt in methods:
                yield {
                    **facts,
                    "domain": evaluation.images,
                    "complete": source.record.complete,
                    "domain_images": methods[prompt].tally.images,
                    "ids_sha256": evaluation.images_sha256,
                    "target": evaluation.target,
                    "classes": evaluation.classes,
                    "label": tuning.label if prompt == TUNED else prompt,
                    "method": tuning.facts["method"] if prompt == TUNED else None,
                    **list_rates(domain, prompt),
                }


def _describe_run(source: TuningSource) -> dict[str, Any]:
    record = source.record
    bundle, tuning, cost = record.bundle, record.tuning, record.cost
    return {
        "file": source.path,
        "model": bundle.get("model"),
        "precision": tuning.get("precision"),
        "weights_sha256": bundle.get("weights_sha256"),
        "preparation": describe_preparation(bundle),
        "dataset": tuning["data"],
        "seed": source.seed,
        "head": record.head,
        "shots": tuning["shots"],
        "learnt_classes": tuning["classes"],
        "steps": cost.steps,
        "calls": cost.calls,
        "text_encodes": cost.text_encodes,
        "image_encodes": cost.image_encodes,
        "training_seconds": record.seconds,
    }
