"""The grid of a sweep: bundles × precisions × methods × corruptions × severities × seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..._version import __version__
from ...engine.bundle.bundle import Bundle
from ...engine.errors import InputError
from ...engine.registry import options_of, parse_method
from ..datasets.domain import Domain
from ..datasets.subset import choose_subset
from ..protocol import Protocol
from ..streaming.experiment import prepare
from .cell import PATHS, Cell, Job

# How one stream runs; what else `prepare` takes is asked for.
_STREAM = {"setting": "reset", "seeds": 1, "rounds": None, "concentration": None}


@dataclass(frozen=True)
class _Graph:
    """One graph of a bundle, with what `prepare` makes of the protocol for it."""

    bundle: Bundle
    precision: str
    protocol: Protocol


def plan(
    bundles: Sequence[Path],
    methods: Sequence[str],
    *,
    precisions: Sequence[str],
    severities: Sequence[int],
    corruptions: Sequence[str] | None,
    seed: int,
    seeds: int,
    **data: Any,
) -> list[Job]:
    """A job for every cell of the grid, after checking what can be checked before the work.

    What the data set has without a severity (clean images, a plain folder) is there once, not per severity.
    Seeds are outermost, so that an interrupted sweep has whole tables of the first ones; then come the
    domains, as the others read the same files.

    Args:
        bundles: their folders.
        methods: each as for `parse_method`.
        precisions: graphs that every bundle has.
        severities, corruptions: which; None is all corruptions.
        seed, seeds: the first seed, and how many, counting up.
        data: what else `prepare` takes, but for `setting`, `rounds`, `concentration`, `workers` and
            `micro_batch`.

    Raises:
        FozoError: anything that cannot be used, with what to do about it.
    """
    data = {name: _absolute(name, value) for name, value in {**_STREAM, **data}.items()}
    chosen = {**data, "severities": tuple(severities), "corruptions": corruptions}
    domains = _domains(bundles[0], methods, {**chosen, "precision": precisions[0], "seed": seed})
    graphs = [
        _checked(Path(bundle).absolute(), precision, methods, domains[0], {**chosen, "seed": seed})
        for bundle in bundles
        for precision in precisions
    ]
    jobs = []
    for number in range(seed, seed + seeds):
        for domain in choose_subset(domains, data["subset"], number, data["subset_list"])[0]:
            images = domain.ids_sha256()
            jobs += [
                _job(graph, spec, domain, images, {**chosen, "seed": number})
                for graph in graphs
                for spec in methods
            ]
    twice = len(jobs) - len({job.cell.key for job in jobs})
    if twice:
        raise InputError(f"{twice} cells of the sweep are there twice; name each bundle and precision once")
    return jobs


def _absolute(name: str, value: Any) -> Any:
    return Path(value).absolute() if name in PATHS and value is not None else value


def _domains(bundle: Path, methods: Sequence[str], arguments: Mapping[str, Any]) -> list[Domain]:
    """All domains with all of their images."""
    whole = {**arguments, "subset": "all", "subset_list": None}
    experiment = prepare(bundle, methods, **whole, workers=1, micro_batch=None)
    with experiment.network:
        return experiment.domains(arguments["seed"])


def _checked(
    bundle: Path, precision: str, methods: Sequence[str], domain: Domain, options: Mapping[str, Any]
) -> _Graph:
    """Opens a graph with all methods on one domain: what fails in a cell of it fails here."""
    arguments = {**_narrow(domain, options), "precision": precision}
    experiment = prepare(bundle, methods, **arguments, workers=1, micro_batch=None)
    with experiment.network:
        return _Graph(experiment.bundle, precision, experiment.protocol)


def _narrow(domain: Domain, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of `prepare` with which a domain is there, and as few others as possible."""
    if domain.severity is not None:
        one = {"severities": (domain.severity,), "corruptions": (domain.name,), "clean": None}
        return {**options, **one, "labels": options["labels"] if options["generate_from"] else None}
    narrow = {**options, "severities": tuple(options["severities"][:1])}
    if options["dataset"] == "demo" or options["generate_from"] is not None:  # then it is the clean images
        narrow["corruptions"] = (domain.name,)
    return narrow


def _job(graph: _Graph, spec: str, domain: Domain, images: str, options: Mapping[str, Any]) -> Job:
    label, method = parse_method(spec)
    cell = Cell(
        bundle=graph.bundle.sha256,
        model=graph.bundle.manifest.model,
        precision=graph.precision,
        provider=options["provider"],
        label=label,
        method=method.name,
        options=tuple(options_of(method).items()),
        dataset=graph.protocol.dataset,
        domain=domain.name,
        severity=domain.severity,
        seed=options["seed"],
        subset=graph.protocol.subset,
        images=len(domain),
        images_sha256=images,
        classes=options["classes"],
        batch_size=options["batch_size"],
        fozo=__version__,
    )
    arguments = {**_narrow(domain, options), "precision": graph.precision, "methods": [spec]}
    texts = {name: str(value) for name, value in arguments.items() if name in PATHS and value is not None}
    return Job(cell, str(graph.bundle.path), {**arguments, **texts})
