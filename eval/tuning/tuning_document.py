"""The results of a tuning run as a JSON file."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...engine.bundle.origin import list_origin
from ...engine.files import write_atomic
from ...engine.records import to_dict
from ...engine.tuning.sapt import StepRecord
from ..results.run_facts import describe_machine
from .context_training import TrainingState
from .seed_summary import collect_scores, compute_harmonic_means
from .tuning_evaluation import BASE, NEW, Evaluation
from .tuning_record import KIND, SCHEMA, EvaluationRecord, TuningRecord
from .tuning_run import TuningRun


def describe_run(
    run: TuningRun, state: TrainingState, evaluations: Sequence[Evaluation], head: str
) -> dict[str, Any]:
    """Return the JSON data of a results file.

    Args:
        run: the run.
        state: its last state.
        evaluations: on test images.
        head: name of the head that was stored.
    """
    described = tuple(map(_describe_evaluation, evaluations))
    scores = collect_scores([{"evaluations": [to_dict(evaluation) for evaluation in described]}])
    record = TuningRecord(
        schema=SCHEMA,
        kind=KIND,
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        complete=state.step == run.training.steps,
        seconds=state.seconds,
        bundle={
            "path": str(run.bundle.path),
            "sha256": run.bundle.sha256,
            "model": run.bundle.manifest.model,
            **list_origin(run.bundle.manifest),
        },
        head=head,
        tuning=run.describe(state),
        cost=run.cost,
        machine=describe_machine(),
        images=tuple(image.path for image in run.task.shots),
        class_ids=tuple(run.task.data.class_ids),
        class_names=tuple(run.task.data.class_names),
        curve={
            name: tuple(state.curve[:, column].tolist()) for column, name in enumerate(StepRecord._fields)
        },
        evaluations=described,
        harmonic_means=compute_harmonic_means(scores, run.spec.classes),
    )
    return to_dict(record)


def save_run(path: Path, content: dict[str, Any]) -> None:
    """Write a results file, atomically.

    Raises:
        OutputError: the file cannot be written.
    """
    write_atomic(path, (json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())


def format_evaluation(evaluation: Evaluation) -> str:
    """Return a table of the prompts: accuracy, macro-F1, calibration error and likelihood."""
    width = max(map(len, evaluation.results)) + 2
    images = next(iter(evaluation.results.values())).tally.images
    half = {BASE: "base ", NEW: "new "}.get(evaluation.target, "")
    title = f"{evaluation.images}: {images:,} images of {evaluation.classes:,} {half}classes"
    lines = [title, f"{'prompt'.ljust(width)}accuracy %  macro-F1 %     ECE %       NLL"]
    for prompt, result in evaluation.results.items():
        tally = result.tally
        rates = f"{100 * tally.accuracy:10.2f}{100 * (tally.macro_f1 or 0):12.2f}"
        lines.append(f"{prompt.ljust(width)}{rates}{100 * tally.ece:10.2f}{tally.mean_nll:10.3f}")
    return "\n".join(lines)


def _describe_evaluation(evaluation: Evaluation) -> EvaluationRecord:
    return EvaluationRecord(
        evaluation.images,
        evaluation.target,
        evaluation.classes,
        evaluation.images_sha256,
        {prompt: result.to_tally_record() for prompt, result in evaluation.results.items()},
    )
