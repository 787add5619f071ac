"""Everything that a report says about tunings, as one value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .evaluated_sets import (
    EvaluatedSet,
    list_evaluated_sets,
    name_data_apart,
    name_template,
    sort_targets,
)
from .explanations import RELIABILITY_OF_SEEDS
from .learning_charts import LearningChart, make_learning_charts
from .notes import describe_best
from .reliability import Reliability, make_diagram
from .tables import Table
from .tuning_provenance import TuningProvenance, digest_tuning_provenance, explain_tuning
from .tuning_rows import list_tuning_rows
from .tuning_sources import Tuning, TuningSource, group_tunings
from .tuning_tables import (
    name_tunings,
    tabulate_base_to_new,
    tabulate_cost,
    tabulate_set,
    tabulate_side_by_side,
)


@dataclass(frozen=True)
class SetDigest:
    """The part of a report about one set of test images.

    Attributes:
        title: name of the images.
        about: model, number of images and classes.
        headline: the main result in one sentence.
        rates: rates of every prompt.
        reliability: reliability of the plain template and of every learnt prompt.
    """

    title: str
    about: str
    headline: str
    rates: Table
    reliability: Reliability


@dataclass(frozen=True)
class TuningsDigest:
    """The part of a report about tunings.

    Attributes:
        about: methods and data in a few words.
        labels: the plain template and the labels of the tunings, in the order of their colours.
        warnings: facts that a reader must know before the numbers.
        side_by_side: accuracy per data set, for each kind of test images with several.
        sets: every set of test images.
        base_to_new: harmonic means of learnt and new classes, by data set.
        curves: training curves, by data set.
        cost: what every tuning needed.
        provenance: options, data, files, model, program and machine.
        rows: all counts and rates, a row per seed, set of test images and prompt.
    """

    about: str
    labels: tuple[str, ...]
    warnings: tuple[str, ...]
    side_by_side: tuple[Table, ...]
    sets: tuple[SetDigest, ...]
    base_to_new: tuple[Table, ...]
    curves: tuple[LearningChart, ...]
    cost: Table
    provenance: TuningProvenance
    rows: tuple[Mapping[str, Any], ...]


def digest_tunings(sources: Sequence[TuningSource]) -> TuningsDigest:
    """Return the digest of some tunings.

    Raises:
        InputError: a seed of a tuning is there twice.
    """
    tunings = name_data_apart(group_tunings(sources))
    sets = list_evaluated_sets(tunings)
    labels = list(dict.fromkeys(tuning.label for tuning in tunings))
    untuned = name_template(sets[0].templates[0]) if sets else "untuned"
    kinds = sort_targets(sets).values()
    return TuningsDigest(
        describe_tunings(tunings),
        (untuned, *labels),
        tuple(_list_warnings(tunings, sets)),
        tuple(table for same_kind in kinds for table in tabulate_side_by_side(same_kind)),
        tuple(_digest_set(image_set, labels, explained=image_set is sets[0]) for image_set in sets),
        tuple(tabulate_base_to_new(tunings, sets)),
        tuple(make_learning_charts(tunings, labels)),
        tabulate_cost(tunings),
        digest_tuning_provenance(tunings),
        tuple(row for tuning in tunings for row in list_tuning_rows(tuning)),
    )


def describe_tunings(tunings: Sequence[Tuning]) -> str:
    """Return methods and data in a few words."""
    labels = dict.fromkeys(str(tuning.facts["method"]) for tuning in tunings)
    data = dict.fromkeys(str(tuning.facts["data"]) for tuning in tunings)
    return f"{', '.join(labels)} on {', '.join(data)}"


def _digest_set(image_set: EvaluatedSet, labels: Sequence[str], *, explained: bool) -> SetDigest:
    key, averages = image_set.key, image_set.average()
    return SetDigest(
        f"Test images: {key.name}",
        f"{key.model}, {key.count:,} images of {key.classes:,} classes",
        describe_best(averages, image_set.is_tie),
        tabulate_set(image_set, explained=explained),
        Reliability(
            tuple(
                make_diagram(label, image_set.pool(label), 1 + labels.index(label) if label in labels else 0)
                for label in (name_template(image_set.templates[0]), *image_set.runs)
            ),
            RELIABILITY_OF_SEEDS,
        ),
    )


def _list_warnings(tunings: Sequence[Tuning], sets: Sequence[EvaluatedSet]) -> list[str]:
    names = name_tunings(tunings)
    incomplete = [
        name
        for name, tuning in zip(names, tunings, strict=True)
        if not all(source.record.complete for source in tuning.sources)
    ]
    single = [name for name, tuning in zip(names, tunings, strict=True) if len(tuning.sources) == 1]
    warnings = []
    if incomplete:
        warnings.append(f"Incomplete: {', '.join(incomplete)}.")
    if not sets:
        warnings.append("No test images were classified; give fozo tune --evaluate test.")
    if single and sets:
        warnings.append(
            f"A single seed: {', '.join(single)}. What the choice of the training images changes is in no "
            "error; the literature has three seeds."
        )
    shots = {tuning.facts["shots"] for tuning in tunings}
    if len(shots) > 1:
        texts = (f"{name}: {explain_tuning(tuning)}" for name, tuning in zip(names, tunings, strict=True))
        warnings.append(f"Not all tunings have equally many training images. {' '.join(texts)}")
    return warnings
