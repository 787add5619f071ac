"""Accuracy over several seeds, and the harmonic mean of learnt and new classes (base-to-new)."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..results.average import compute_spread
from .tuning_evaluation import BASE, NEW, TEST

SCHEMA = 1
KIND = "tuning-seeds"


@dataclass(frozen=True)
class PromptScore:
    """Accuracy of a prompt on the same images, by seed.

    Attributes:
        target: `test`, `base`, `new`, or the folder of the images.
        images: name of the images.
        classes: number of classes that are predicted among.
        prompt: a template, or `tuned`.
        accuracies: in 0..1, one for each seed.
    """

    target: str
    images: str
    classes: int
    prompt: str
    accuracies: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over the seeds, in 0..1."""
        return sum(self.accuracies) / len(self.accuracies)

    @property
    def spread(self) -> float | None:
        """Unbiased standard deviation over the seeds; None for a single one."""
        return compute_spread(self.accuracies)


def collect_scores(contents: Sequence[Mapping[str, Any]]) -> list[PromptScore]:
    """Return the scores of runs that differ in their seeds, given the JSON data of their results."""
    scores = []
    for index, evaluation in enumerate(contents[0]["evaluations"]):
        for prompt in evaluation["prompts"]:
            counts = [content["evaluations"][index]["prompts"][prompt] for content in contents]
            facts = evaluation["target"], evaluation["images"], evaluation["classes"], prompt
            scores.append(PromptScore(*facts, tuple(float(count["accuracy"]) for count in counts)))
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
        "kind": KIND,
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
            }
            for score in scores
        ],
        "harmonic_means": compute_harmonic_means(scores, first["classes"]),
    }


def format_seeds(scores: Sequence[PromptScore], harmonic_means: Mapping[str, float]) -> str:
    """Return a table of mean and standard deviation, and the harmonic means below it."""
    rows = [(score.target, score.prompt, _format_accuracy(score)) for score in scores]
    rows += [("harmonic mean", prompt, f"{100 * mean:.2f}") for prompt, mean in harmonic_means.items()]
    widths = [max(len(row[column]) for row in rows) + 2 for column in (0, 1)]
    titles = ("images", "prompt", "accuracy %")
    return "\n".join(
        f"{target.ljust(widths[0])}{prompt.ljust(widths[1])}{accuracy}"
        for target, prompt, accuracy in (titles, *rows)
    )


def _format_accuracy(score: PromptScore) -> str:
    spread = "" if score.spread is None else f" ± {100 * score.spread:.2f}"
    return f"{100 * score.mean:.2f}{spread}"
