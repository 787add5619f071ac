"""`results.json`: everything needed to read, check and repeat a run. The schema is in docs/results.md."""

from __future__ import annotations

import datetime
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...engine.errors import InputError, reason
from ...engine.files import write_atomic
from ...engine.ordinary_files import read_json
from ...engine.records import RecordError, load_record, to_dict
from ..protocol import OWN_CLASSES, Protocol
from .average import MethodAverage, average_by_domain, compute_averages
from .outcome import Run
from .recipe_obstacles import describe_run_obstacles
from .recipe_record import Recipe

SCHEMA = 4


@dataclass(frozen=True)
class MethodEntry:
    """A method of a results file: registered name, cost, and all options with their values."""

    method: str
    forwards_per_batch: int | float
    options: dict[str, Any]
    pull_backs_per_batch: int | float = 0


@dataclass(frozen=True, kw_only=True)
class ResultsRecord:
    """The content of a results file; the fields are those of docs/results.md, in this order."""

    schema: int
    created: str
    complete: bool
    key_sha256: str
    protocol: Protocol
    bundle: dict[str, Any]
    engine: dict[str, Any]
    methods: dict[str, MethodEntry]
    versions: dict[str, str]
    machine: dict[str, Any]
    average: dict[str, MethodAverage]
    runs: list[Run]
    average_by_domain: dict[str, dict[str, MethodAverage]] = field(default_factory=dict)
    recipe: Recipe | None = None
    not_comparable: list[str] = field(default_factory=list)


@dataclass
class Results:
    """Results of several methods under one protocol, with their provenance.

    Attributes:
        protocol: protocol of the stream.
        bundle: `path`, `sha256` of the manifest, `model`, `precision`, `graph_sha256`, `source`, `classes`
            that are predicted among, and what `list_origin` says of weights and images.
        engine: `provider`, `workers`, `micro_batch`.
        methods: methods with all their options, by label.
        versions: versions of fozo, Python and the packages that compute.
        machine: system, architecture, processors.
        runs: one per seed that was begun.
        created: time of writing, UTC.
        key_sha256: hash of everything that determines the results, for `--resume`.
        recipe: published protocol that was run, with its figures; None if no recipe was used.
    """

    protocol: Protocol
    bundle: dict[str, Any]
    engine: dict[str, Any]
    methods: dict[str, MethodEntry]
    versions: dict[str, str]
    machine: dict[str, Any]
    runs: list[Run]
    created: str = ""
    key_sha256: str = ""
    recipe: Recipe | None = None

    @property
    def complete(self) -> bool:
        """True if every image of every domain was processed, for every seed."""
        return len(self.runs) == len(self.protocol.seeds) and all(run.complete for run in self.runs)

    @property
    def not_comparable(self) -> list[str]:
        """Sentences that say why the figures cannot be compared with those of the recipe."""
        if self.recipe is None:
            return []
        return describe_run_obstacles(self.recipe, self.bundle, self.protocol, self.runs)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON data of a results file, with the averages that follow from the runs."""
        has_own_classes = (
            self.protocol.classes == OWN_CLASSES
        )  # data sets of their own, not corruptions of one
        record = ResultsRecord(
            schema=SCHEMA,
            created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            complete=self.complete,
            average=compute_averages(self.runs),
            average_by_domain=average_by_domain(self.runs) if has_own_classes else {},
            not_comparable=self.not_comparable,
            **{name: getattr(self, name) for name in _SHARED},
        )
        return to_dict(record)

    @classmethod
    def from_record(cls, record: ResultsRecord) -> Results:
        """Return the results of a file's content."""
        return cls(created=record.created, **{name: getattr(record, name) for name in _SHARED})

    def save(self, path: Path) -> None:
        """Write the document, atomically.

        Raises:
            OutputError: the file cannot be written; an older one is left as it was.
        """
        text = json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)
        write_atomic(path, (_NUMBERS.sub(_join_lines, text) + "\n").encode())


_SHARED = ("key_sha256", "protocol", "bundle", "engine", "methods", "versions", "machine", "runs", "recipe")
# A list of numbers over several lines; no string of JSON has a line break in it.
_NUMBERS = re.compile(r"\[\n\s+(?:(?:-?\d[\d.e+-]*|null),?\s+)+\]")


def _join_lines(match: re.Match[str]) -> str:
    return " ".join(match.group().split()).replace("[ ", "[").replace(" ]", "]")


def read_results(path: Path) -> Results:
    """Read a file that `Results.save` wrote.

    Raises:
        InputError: the file cannot be read, or holds no results of this schema.
    """
    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read results from {path}: {reason(error)}") from error
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema != SCHEMA:
        raise InputError(
            f"expected results of `fozo adapt` with schema {SCHEMA} in {path}, found "
            f"{f'schema {schema}' if schema else 'something else'}; run fozo adapt again with this version"
        )
    try:
        return load_record(Results, content, path)
    except RecordError as error:
        raise InputError(f"{error}; run fozo adapt again") from error
