"""A cell of a sweep: one method on one stream; a value that says all that decides on its result."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ...engine.errors import BundleError, InputError
from ...engine.files import sha256_of_parts
from ..datasets.domain import Domain
from ..streaming.experiment import Experiment, prepare
from ..streaming.spec import EvaluationSpec

_NAME_LENGTH = 120
_HASH_LENGTH = 12


def readable(*parts: str) -> str:
    """Parts of a file's name that anyone can type, cut where they are very long."""
    return "-".join(re.sub(r"[^A-Za-z0-9_.=,]+", "_", part) for part in parts)[:_NAME_LENGTH]


@dataclass(frozen=True)
class Cell:
    """One method on one stream, from its initial state: equal cells have equal results.

    Images are told apart by their identifiers; what is in the files is not looked at.

    Attributes:
        bundle: SHA-256 of its manifest, and through it of everything in it.
        model: what the bundle calls it.
        precision, provider: which graph, and who computes.
        label: what the method is called in tables.
        method, options: its name, and all its options.
        dataset: as in `Protocol`.
        domain, severity: of the data set.
        seed: of the subset, the order, the generated corruptions and the method.
        subset: as in `Protocol`.
        images: how many.
        images_sha256: of their identifiers in order.
        classes: which to predict among, as it was asked for.
        batch_size: images per batch.
        fozo: version.
    """

    bundle: str
    model: str
    precision: str
    provider: str
    label: str
    method: str
    options: tuple[tuple[str, Any], ...]
    dataset: str
    domain: str
    severity: int | None
    seed: int
    subset: str
    images: int
    images_sha256: str
    classes: str
    batch_size: int
    fozo: str

    @property
    def key(self) -> str:
        """SHA-256 of all of it."""
        return sha256_of_parts(json.dumps(self.to_json(), sort_keys=True))

    @property
    def title(self) -> str:
        """What people call it."""
        severity = "" if self.severity is None else f" {self.severity}"
        return f"{self.model} {self.precision}, {self.label}, {self.domain}{severity}, seed {self.seed}"

    @property
    def name(self) -> str:
        """Of its file: readable, and no other cell has it."""
        severity = "" if self.severity is None else f"{self.severity}"
        parts = (self.model, self.precision, self.label, f"{self.domain}{severity}", str(self.seed))
        return f"{readable(*parts)}-{self.key[:_HASH_LENGTH]}"

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        return {**asdict(self), "options": dict(self.options)}

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> Cell:
        """The same again; raises what dictionaries and constructors raise if it is something else."""
        return Cell(**{**content, "options": tuple(content["options"].items())})


@dataclass(frozen=True)
class Job:
    """A cell, and the evaluation that computes it.

    Attributes:
        cell: what to compute.
        spec: the evaluation, with absolute paths.
    """

    cell: Cell
    spec: EvaluationSpec

    @property
    def bundle(self) -> str:
        """Folder of the bundle."""
        return str(self.spec.bundle)

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values, to send it to another process."""
        return {"cell": self.cell.to_json(), "spec": self.spec.to_dict()}

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> Job:
        """Return the job of a dictionary that `to_json` has made."""
        return Job(Cell.from_json(content["cell"]), EvaluationSpec.from_dict(content["spec"]))


def compute(
    job: Job,
    threads: int,
    bundle: Path | None = None,
    on_images: Callable[[int], None] = lambda images: None,
) -> dict[str, Any]:
    """Streams a cell from beginning to end.

    Args:
        job: the cell and its evaluation.
        threads: that compute; the result does not depend on it.
        bundle: a copy of the bundle to use instead.
        on_images: called with the number of images after every batch.

    Returns:
        The document of its results (docs/results.md), with the cell itself under `cell`.

    Raises:
        FozoError: bundle, data or method cannot be used, or are not those of the cell.
    """
    opened = prepare(replace(job.spec, bundle=bundle or job.spec.bundle, workers=threads))
    with opened.network:
        experiment = _restricted(opened, job.cell)
        for images in experiment.run():
            on_images(images)
    document = experiment.results.to_json()
    document["bundle"]["path"] = job.bundle
    return {**document, "cell": job.cell.to_json()}


def _restricted(experiment: Experiment, cell: Cell) -> Experiment:
    """The experiment with the one domain of the cell, after checking that it is the one that was meant."""
    if experiment.bundle.sha256 != cell.bundle:
        raise BundleError(
            f"the bundle {experiment.bundle.path} has changed since the sweep began; start the sweep again"
        )
    matching = [
        domain
        for domain in experiment.domains(cell.seed)
        if (domain.name, domain.severity) == (cell.domain, cell.severity)
    ]
    if [domain.ids_sha256() for domain in matching] != [cell.images_sha256]:
        raise InputError(
            f"expected {cell.images:,} images of {cell.domain} as they were when the sweep began, found "
            f"{sum(map(len, matching)):,}, or others; put them back, or start the sweep again"
        )

    def domains(seed: int) -> list[Domain]:
        return matching

    severities = () if cell.severity is None else (cell.severity,)
    protocol = replace(experiment.protocol, severities=severities, dataset=cell.dataset)
    return replace(experiment, domains=domains, protocol=protocol)
