"""Sets of test images that tunings were evaluated on, with the untuned texts beside every learnt prompt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ...results.average import MethodAverage, compute_averages
from ...results.metrics import Tally
from ...results.outcome import DomainResult, MethodResult, Run, Trace
from ...tuning.tuning_evaluation import BASE, NEW, TEST, TUNED
from ...tuning.tuning_record import EvaluationRecord
from .groups import add_tallies
from .tuning_sources import Tuning, TuningSource, describe_data


@dataclass(frozen=True)
class SetKey:
    """The facts that must agree for two evaluations to have the same images, classes and graph.

    Attributes:
        images: name of the images.
        target: `test`, `base`, `new`, or the folder of the images.
        classes: number of classes that are predicted among.
        count: number of images.
        images_sha256: hash of the images.
        model: model and precision.
        graph_sha256: hash of the image graph.
    """

    images: str
    target: str
    classes: int
    count: int
    images_sha256: str
    model: str
    graph_sha256: str

    @property
    def name(self) -> str:
        """Name of the images, and the half of the classes if there are halves."""
        return f"{self.images}, {self.target} classes" if self.target in (BASE, NEW) else self.images


@dataclass(frozen=True)
class EvaluatedSet:
    """Test images with the results of every tuning that was evaluated on them.

    Attributes:
        key: which images they are.
        runs: by label of the tuning, a run for each seed; its methods are the templates, the plain one first,
            and the label for what was learnt.
        templates: the untuned texts of the first tuning.
    """

    key: SetKey
    runs: Mapping[str, Sequence[Run]]
    templates: tuple[str, ...]

    def average(self) -> dict[str, MethodAverage]:
        """Return averages over the seeds: of the untuned texts, by the text, and of every tuning, by label.

        Gains are over the plain template. Untuned texts have no seeds, so theirs is that of one run.
        """
        first = next(iter(self.runs.values()))
        untuned = compute_averages(first[:1])
        averages = {name_template(template): untuned[template] for template in self.templates}
        return {**averages, **{label: compute_averages(runs)[label] for label, runs in self.runs.items()}}

    def is_tie(self, label: str, best: str) -> bool:
        """Return whether two prompts, named as in `average`, are statistically indistinguishable."""
        pairs = _pair(self._find_results(label), self._find_results(best))
        runs = [
            Run(
                seed,
                [DomainResult(self.key.name, {"label": one, "best": other}, complete=True)],
                {"label": Trace(), "best": Trace()},
                complete=True,
            )
            for seed, (one, other) in enumerate(pairs)
        ]
        return bool(compute_averages(runs)["best"].gain_is_noise)

    def pool(self, label: str) -> Tally:
        """Return the counts of a prompt, named as in `average`, over the seeds."""
        return add_tallies(result.tally for result in self._find_results(label).values())

    def _find_results(self, label: str) -> dict[int, MethodResult]:
        """Return the results of a prompt by seed; of an untuned text those of the first tuning."""
        if label in self.runs:
            return {run.seed: run.domains[0].methods[label] for run in self.runs[label]}
        names = {name_template(template): template for template in self.templates}
        first = next(iter(self.runs.values()))
        return {run.seed: run.domains[0].methods[names[label]] for run in first}


def name_template(template: str) -> str:
    """Return the name of an untuned text, which no label of a tuning has.

    >>> name_template("a photo of a {}.")
    '“a photo of a {}.”'
    """
    return f"“{template}”"


def name_data_apart(tunings: Sequence[Tuning]) -> list[Tuning]:
    """Return tunings whose labels say the data, too, where others of that label have the same test images."""
    keys = [
        {
            make_set_key(source, evaluation)
            for source in tuning.sources
            for evaluation in source.record.evaluations
        }
        for tuning in tunings
    ]
    named = []
    for tuning, own_keys in zip(tunings, keys, strict=True):
        keys_of_others = [
            other_keys
            for other, other_keys in zip(tunings, keys, strict=True)
            if other.label == tuning.label and other is not tuning
        ]
        suffix = f" on {describe_data(tuning)}" if any(own_keys & other for other in keys_of_others) else ""
        named.append(replace(tuning, label=tuning.label + suffix))
    return named


def list_evaluated_sets(tunings: Sequence[Tuning]) -> list[EvaluatedSet]:
    """Return the sets of test images in the order in which tunings were evaluated on them."""
    runs: dict[SetKey, dict[str, list[Run]]] = {}
    templates: dict[SetKey, tuple[str, ...]] = {}
    for tuning in tunings:
        for source in tuning.sources:
            for evaluation in source.record.evaluations:
                key = make_set_key(source, evaluation)
                templates.setdefault(key, tuple(name for name in evaluation.prompts if name != TUNED))
                run = _make_run(source.seed, tuning.label, key, evaluation)
                runs.setdefault(key, {}).setdefault(tuning.label, []).append(run)
    return [EvaluatedSet(key, by_label, templates[key]) for key, by_label in runs.items()]


def make_set_key(source: TuningSource, evaluation: EvaluationRecord) -> SetKey:
    """Return which images an evaluation has."""
    record = source.record
    return SetKey(
        evaluation.images,
        evaluation.target,
        evaluation.classes,
        next(iter(evaluation.prompts.values())).images,
        evaluation.images_sha256,
        f"{record.bundle.get('model', '')} {record.tuning.get('precision', '')}".strip(),
        str(record.tuning.get("graph_sha256", "")),
    )


def sort_targets(sets: Iterable[EvaluatedSet]) -> dict[str, list[EvaluatedSet]]:
    """Return the sets by kind: `test`, `base`, `new`, and `folder` for all folders."""
    kinds: dict[str, list[EvaluatedSet]] = {}
    for image_set in sets:
        target = image_set.key.target
        kinds.setdefault(target if target in (TEST, BASE, NEW) else "folder", []).append(image_set)
    return kinds


def _make_run(seed: int, label: str, key: SetKey, evaluation: EvaluationRecord) -> Run:
    """Return an evaluation as a run with one domain."""
    methods = {
        label if prompt == TUNED else prompt: replace(MethodResult.from_tally_record(counts), batches=1)
        for prompt, counts in evaluation.prompts.items()
    }
    domain = DomainResult(
        key.name, methods, images=key.count, ids_sha256=evaluation.images_sha256, complete=True
    )
    return Run(seed, [domain], {name: Trace() for name in methods}, complete=True)


def _pair(
    one: Mapping[int, MethodResult], other: Mapping[int, MethodResult]
) -> list[tuple[MethodResult, MethodResult]]:
    """Return the results of equal seeds, or in order if the seeds are others."""
    common = [seed for seed in one if seed in other]
    if common:
        return [(one[seed], other[seed]) for seed in common]
    return list(zip(one.values(), other.values(), strict=False))
