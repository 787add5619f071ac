"""A cell of a sweep: one method on one stream, with everything that decides on its result."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...engine.errors import BundleError, InputError
from ...engine.files import hash_texts
from ...engine.records import to_dict
from ..datasets.domain import Domain
from ..streaming.experiment import Experiment, prepare
from ..streaming.spec import EvaluationSpec

_NAME_LENGTH = 120
_HASH_LENGTH = 12


def readable_name(*words: str) -> str:
    """Return words as a file name that anyone can type, cut to a length that file systems accept."""
    return "-".join(re.sub(r"[^A-Za-z0-9_.=,]+", "_", word) for word in words)[:_NAME_LENGTH]


@dataclass(frozen=True)
class Cell:
    """One method on one stream, from its initial state: equal cells have equal results.

    Images are distinguished by their identifiers; the content of the files is not read.

    Attributes:
        bundle: SHA-256 of the bundle's manifest, which has the hashes of all other files.
        model: name of the model in the bundle.
        precision: graph of the bundle.
        provider: execution provider.
        label: name of the method in tables.
        method: registered name of the method.
        options: all options of the method by name.
        dataset: as in `Protocol`.
        domain: name of the domain.
        severity: severity of the corruption, or None.
        seed: seed of the subset, the order, the generated corruptions and the method.
        subset: as in `Protocol`.
        images: number of images.
        images_sha256: SHA-256 of the images' identifiers in order.
        classes: classes to predict among, as in `EvaluationSpec`, and their order if one was asked for.
        batch_size: images per batch.
        fozo: version of fozo.
        exif_orientation, reduced_above: as in `Protocol`.
        head: name of the head in use, where classes come from texts.
    """

    bundle: str
    model: str
    precision: str
    provider: str
    label: str
    method: str
    options: Mapping[str, Any] = field(hash=False)
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
    exif_orientation: str = "ignore"
    reduced_above: int | None = None
    head: str | None = None

    @property
    def key(self) -> str:
        """SHA-256 of all attributes."""
        return hash_texts(json.dumps(to_dict(self), sort_keys=True))

    @property
    def title(self) -> str:
        """Description of the cell for messages."""
        severity = "" if self.severity is None else f" {self.severity}"
        return f"{self.model} {self.precision}, {self.label}, {self.domain}{severity}, seed {self.seed}"

    @property
    def name(self) -> str:
        """Readable and unique name of the cell's file, without the suffix."""
        severity = "" if self.severity is None else f"{self.severity}"
        words = (self.model, self.precision, self.label, f"{self.domain}{severity}", str(self.seed))
        return f"{readable_name(*words)}-{self.key[:_HASH_LENGTH]}"


@dataclass(frozen=True)
class Job:
    """A cell, and the evaluation that computes it.

    Attributes:
        cell: the cell to compute.
        spec: the evaluation, with absolute paths.
    """

    cell: Cell
    spec: EvaluationSpec

    @property
    def bundle(self) -> str:
        """Folder of the bundle."""
        return str(self.spec.bundle)


def compute(
    job: Job,
    threads: int,
    bundle: Path | None = None,
    on_images: Callable[[int], None] = lambda images: None,
) -> dict[str, Any]:
    """Compute a cell from beginning to end.

    Args:
        job: the cell and its evaluation.
        threads: number of threads; results do not depend on it.
        bundle: a copy of the bundle to use instead.
        on_images: called with the number of images after every batch.

    Returns:
        The document of its results (docs/results.md), with the cell itself under `cell`.

    Raises:
        FozoError: the bundle, data or method cannot be used, or differs from that of the cell.
    """
    opened = prepare(replace(job.spec, bundle=bundle or job.spec.bundle, workers=threads))
    with opened.method_networks:
        experiment = _restrict_to_cell(opened, job.cell)
        for images in experiment.run():
            on_images(images)
    document = experiment.results.to_dict()
    document["bundle"]["path"] = job.bundle
    return {**document, "cell": to_dict(job.cell)}


def _restrict_to_cell(experiment: Experiment, cell: Cell) -> Experiment:
    """Return the experiment on the domain of the cell, after checking the bundle and the images."""
    if experiment.bundle.sha256 != cell.bundle:
        raise BundleError(
            f"the bundle {experiment.bundle.path} has changed since the sweep began; start the sweep again"
        )
    matching = [
        domain
        for domain in experiment.domains(cell.seed)
        if (domain.name, domain.severity) == (cell.domain, cell.severity)
    ]
    if [domain.hash_ids() for domain in matching] != [cell.images_sha256]:
        raise InputError(
            f"expected {cell.images:,} images of {cell.domain} as they were when the sweep began, found "
            f"{sum(map(len, matching)):,}, or others; put them back, or start the sweep again"
        )

    def domains(seed: int) -> list[Domain]:
        return matching

    severities = () if cell.severity is None else (cell.severity,)
    protocol = replace(experiment.protocol, severities=severities, dataset=cell.dataset)
    return replace(experiment, domains=domains, protocol=protocol)
