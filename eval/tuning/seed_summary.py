"""Accuracy and macro-F1 over several seeds, and the harmonic mean of learnt and new classes (base-to-new)."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..results.average import compute_spread
from .tuning_evaluation import BASE, NEW, TEST
from .tuning_record import SCHEMA, SEEDS_KIND


@dataclass(frozen=True)
class PromptScore:
    """Accuracy and macro-F1 of a prompt on the same images, by seed.

    Attributes:
        target: `test`, `base`, `new`, or the folder of the images.
        images: name of the images.
        classes: number of classes that are predicted among.
        prompt: a template, or `tuned`.
        accuracies, macro_f1s: in 0..1, one for each seed.
    """

    target: str
    images: str
    classes: int
    prompt: str
    accuracies: tuple[float, ...]
    macro_f1s: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean accuracy over the seeds, in 0..1."""
        return average_values(self.accuracies)

    @property
    def spread(self) -> float | None:
        """Unbiased standard deviation of the accuracy over the seeds; None for a single one."""
        return compute_spread(self.accuracies)


def average_values(values: Sequence[float]) -> float:
    """Return the mean of at least one value.

    >>> average_values((0.5, 1.0))
    0.75
    """
    return sum(values) / len(values)


def collect_scores(contents: Sequence[Mapping[str, Any]]) -> list[PromptScore]:
    """Return the scores of runs that differ in their seeds, given the JSON data of their results."""
    scores = []
    for index, evaluation in enumerate(contents[0]["evaluations"]):
        for prompt in evaluation["prompts"]:
            counts = [content["evaluations"][index]["prompts"][prompt] for content in contents]
            facts = evaluation["target"], evaluation["images"], evaluation["classes"], prompt
            accuracies, macro_f1s = (
                tuple(float(count[rate]) for count in counts) for rate in ("accuracy", "macro_f1")
            )
            scores.append(PromptScore(*facts, accuracies, macro_f1s))
    return scores


def compute_harmonic_means(scores: Sequence[PromptScore], learnt: str) -> dict[str, float]:
    """Return `2 b n / (b + n)` of each prompt, b and n its mean accuracies on learnt and on new classes.

    Args:
        scores: of all test images.
        learnt: classes that were learnt; without `base` there is nothing to compute.
    """
    if learnt != BASE:
        return {}
    means = {(score.target, score.prompt): score.mean for score in scores}
    harmonic_means = {}
    for target, prompt in means:
        base, new = means[target, prompt], means.get((NEW, prompt))
        if target in (BASE, TEST) and new is not None:
            harmonic_means[prompt] = 2 * base * new / (base + new) if base + new else 0.0
    return harmonic_means


def describe_seeds(contents: Sequence[Mapping[str, Any]], files: Sequence[str]) -> dict[str, Any]:
    """Return the JSON data for several runs.

    Args:
        contents: their results, in the order of the seeds.
        files: names of these results.
    """
    first, scores = contents[0]["tuning"], collect_scores(contents)
    return {
        "schema": SCHEMA,
        "kind": SEEDS_KIND,
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "complete": True,
        "bundle": contents[0]["bundle"],
        "tuning": {name: first[name] for name in ("method", "data", "shots", "classes", "steps", "calls")},
        "cost": contents[0]["cost"],
        "runs": [
            {"seed": content["tuning"]["seed"], "head": content["head"], "file": file}
            for content, file in zip(contents, files, strict=True)
        ],
        "scores": [
            {
                "target": score.target,
                "images": score.images,
                "classes": score.classes,
                "prompt": score.prompt,
                "accuracies": list(score.accuracies),
                "mean": score.mean,
                "standard_deviation": score.spread,
                "macro_f1s": list(score.macro_f1s),
                "macro_f1_mean": average_values(score.macro_f1s),
                "macro_f1_standard_deviation": compute_spread(score.macro_f1s),
            }
            for score in scores
        ],
        "harmonic_means": compute_harmonic_means(scores, first["classes"]),
    }


def format_seeds(scores: Sequence[PromptScore], harmonic_means: Mapping[str, float]) -> str:
    """Return a table of mean and standard deviation, and the harmonic means below it."""
    rows = [
        (score.target, score.prompt, _format_rate(score.accuracies), _format_rate(score.macro_f1s))
        for score in scores
    ]
    rows += [("harmonic mean", prompt, f"{100 * mean:.2f}", "") for prompt, mean in harmonic_means.items()]
    titles = ("images", "prompt", "accuracy %", "macro-F1 %")
    widths = [max(len(row[column]) for row in (titles, *rows)) + 2 for column in range(3)]
    return "\n".join(
        "".join(text.ljust(width) for text, width in zip(row, (*widths, 0), strict=True)).rstrip()
        for row in (titles, *rows)
    )


def _format_rate(values: Sequence[float]) -> str:
    mean, spread = average_values(values), compute_spread(values)
    return f"{100 * mean:.2f}{'' if spread is None else f' ± {100 * spread:.2f}'}"
