"""Tunings of a report: results files of `fozo tune` that differ in nothing but their seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ....engine.errors import InputError
from ....engine.files import hash_file
from ...results.outcome import MethodResult
from ...tuning.tuning_evaluation import TUNED
from ...tuning.tuning_record import TuningRecord, read_tuning
from ...tuning.tuning_spec import TuningSpec
from .check_results import check_result

_HASHES = ("graph_sha256", "text_sha256")
_DATA = ("data", "split", "dataset", "head", "classes", "workers", "reading")  # options that no label needs


@dataclass(frozen=True)
class TuningSource:
    """A results file of one seed.

    Attributes:
        path: path of the file as the caller gave it.
        name: short name, unique among the files of a report.
        sha256: SHA-256 of the content.
        record: its content.
    """

    path: Path
    name: str
    sha256: str
    record: TuningRecord

    @property
    def seed(self) -> int:
        """Seed of the run."""
        return int(self.record.tuning["seed"])


@dataclass(frozen=True)
class Tuning:
    """One method with the same options on the same data, with several seeds.

    Attributes:
        label: method, and options that tell it from other tunings.
        sources: a results file for each seed, at least one.
    """

    label: str
    sources: tuple[TuningSource, ...]

    @property
    def record(self) -> TuningRecord:
        """Content of the first file, for what is equal in all of them."""
        return self.sources[0].record

    @property
    def facts(self) -> Mapping[str, Any]:
        """Options and data of the first file."""
        return self.record.tuning

    @property
    def options(self) -> dict[str, Any]:
        """Options that decide the tuning, without its data and seed."""
        names = [field.name for field in fields(TuningSpec) if field.name not in ("method", "seed", *_DATA)]
        return {name: self.facts[name] for name in names if name in self.facts}


def read_tuning_source(path: Path, name: str) -> TuningSource:
    """Read and check the results of a seed.

    Raises:
        InputError: the file cannot be read, is damaged, or has other results.
    """
    record = read_tuning(path)
    try:
        _check_evaluations(record)
    except ValueError as error:
        raise InputError(f"{path}: {error}; run fozo tune again") from error
    return TuningSource(path, name, hash_file(path), record)


def group_tunings(sources: Sequence[TuningSource]) -> list[Tuning]:
    """Return the tunings of some results files, in the order of the files.

    Raises:
        InputError: a seed of a tuning is there twice.
    """
    groups: dict[str, list[TuningSource]] = {}
    for source in sources:
        groups.setdefault(_make_key(source.record), []).append(source)
    tunings = [
        Tuning(group[0].record.tuning["method"], tuple(sorted(group, key=lambda source: source.seed)))
        for group in groups.values()
    ]
    for tuning in tunings:
        seeds = [source.seed for source in tuning.sources]
        if len(set(seeds)) < len(seeds):
            raise InputError(
                f"expected different seeds of {tuning.label} on {tuning.facts['data']}, found "
                f"{', '.join(f'{source.seed} in {source.path}' for source in tuning.sources)}; leave one out"
            )
    return _name_apart(tunings)


def _make_key(record: TuningRecord) -> str:
    """Return a text that is equal for runs that differ in nothing but their seeds."""
    names = [field.name for field in fields(TuningSpec) if field.name != "seed"]
    facts = {name: record.tuning.get(name) for name in (*names, *_HASHES)}
    return repr((facts, record.class_ids, record.class_names))


def _name_apart(tunings: Sequence[Tuning]) -> list[Tuning]:
    """Return tunings whose labels say in which options they differ from others of their method.

    Tunings of the same method with equal options have the same label, unless their data are the same, too.
    """
    named = []
    for tuning in tunings:
        same_method = [other for other in tunings if other.label == tuning.label]
        differing = [
            name
            for name, value in tuning.options.items()
            if any(name in other.options and other.options[name] != value for other in same_method)
        ]
        texts = [f"{name} {format_option(name, tuning.options[name])}" for name in differing]
        named.append(replace(tuning, label=", ".join([tuning.label, *texts])))
    return [_add_file(tuning, named) for tuning in named]


def _add_file(tuning: Tuning, tunings: Sequence[Tuning]) -> Tuning:
    """Return the tuning with the name of a file in its label if another on the same data has the same one."""
    same = [
        other
        for other in tunings
        if (other.label, other.facts["data"], other.facts["classes"])
        == (tuning.label, tuning.facts["data"], tuning.facts["classes"])
    ]
    if len(same) == 1:
        return tuning
    return replace(tuning, label=f"{tuning.label} ({tuning.sources[0].name})")


def format_option(name: str, value: object) -> str:
    """Return an option's value as the command line calls it.

    >>> format_option("batch", None), format_option("crops", None), format_option("words", "")
    ('all', 'fresh', 'none')
    """
    if value is None:
        return {"batch": "all", "crops": "fresh"}.get(name, "none")
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value == "" else str(value)


def describe_data(tuning: Tuning) -> str:
    """Return the data that a tuning learns from, with the half of the classes if it is one."""
    classes = tuning.facts["classes"]
    return f"{tuning.facts['data']}" + (f", {classes} classes" if classes != "all" else "")


def _check_evaluations(record: TuningRecord) -> None:
    """Check the cost, and the counts of every prompt.

    Raises:
        ValueError: a count is out of range, or contradicts another; the message names its field.
    """
    counts_of_cost = vars(record.cost)
    if record.cost.steps < 1 or min(counts_of_cost.values()) < 0 or record.seconds < 0:
        raise ValueError(f"cost: expected at least one step and nothing below 0, found {counts_of_cost}")
    for number, evaluation in enumerate(record.evaluations):
        where = f"evaluations[{number}].prompts"
        if TUNED not in evaluation.prompts or next(iter(evaluation.prompts)) == TUNED:
            prompts = ", ".join(evaluation.prompts) or "nothing"
            raise ValueError(f"{where}: expected a template and then {TUNED}, found {prompts}")
        images = set()
        for prompt, counts in evaluation.prompts.items():
            check_result(MethodResult.from_tally_record(counts), f"{where}.{prompt}")
            images.add(counts.images)
        if len(images) > 1 or not min(images):
            raise ValueError(f"{where}: expected equal numbers of images, found {sorted(images)}")
