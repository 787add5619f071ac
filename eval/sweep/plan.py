"""The grid of a sweep: bundles × precisions × methods × corruptions × severities × seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..._version import __version__
from ...engine.bundle.bundle import Bundle
from ...engine.errors import InputError
from ...engine.registry import get_options, parse_method
from ..datasets.dataset_registry import generates_corruptions
from ..datasets.domain import Domain
from ..datasets.subset import choose_subset
from ..protocol import Protocol
from ..streaming.experiment import prepare
from ..streaming.spec import EvaluationSpec
from .cell import Cell, Job


@dataclass(frozen=True)
class _Graph:
    """One graph of a bundle, with what `prepare` makes of the protocol for it."""

    bundle: Bundle
    precision: str
    protocol: Protocol


def plan(spec: EvaluationSpec, bundles: Sequence[Path], precisions: Sequence[str]) -> list[Job]:
    """Return a job for every cell of the grid, after checking what can be checked before the work.

    What the data set has without a severity (clean images, a plain folder) is in it once, not per severity.
    Seeds are outermost, so that an interrupted sweep has complete tables of the first ones; then come the
    domains, as the others read the same files.

    Args:
        spec: methods, data and seeds; its bundle and precision are not used.
        bundles: folders of the bundles.
        precisions: graphs that every bundle has.

    Raises:
        FozoError: anything that cannot be used, with what to do about it.
    """
    spec = replace(spec, bundle=Path(bundles[0]), precision=precisions[0], workers=1).with_absolute_paths()
    seeds = range(spec.seed, spec.seed + spec.seeds)
    spec = replace(spec, seeds=1)
    domains = _open_domains(spec)
    graphs = [
        _check_graph(replace(spec, bundle=Path(bundle).absolute(), precision=precision), domains[0])
        for bundle in bundles
        for precision in precisions
    ]
    jobs = []
    for seed in seeds:
        for domain in choose_subset(domains, spec.subset, seed, spec.subset_list)[0]:
            images = domain.hash_ids()
            jobs += [
                _make_job(graph, replace(spec, seed=seed, methods=(method,)), domain, images)
                for graph in graphs
                for method in spec.methods
            ]
    repeated = len(jobs) - len({job.cell.key for job in jobs})
    if repeated:
        raise InputError(
            f"expected every cell of the sweep once, found {repeated:,} of them again; name each bundle and "
            "precision once"
        )
    return jobs


def _open_domains(spec: EvaluationSpec) -> list[Domain]:
    """Return all domains with all of their images."""
    experiment = prepare(replace(spec, subset="all", subset_list=None))
    with experiment.method_networks:
        return experiment.domains(spec.seed)


def _check_graph(spec: EvaluationSpec, domain: Domain) -> _Graph:
    """Open a graph with all methods on one domain, so that what fails in one of its cells fails now."""
    experiment = prepare(_narrow(spec, domain))
    with experiment.method_networks:
        return _Graph(experiment.bundle, spec.precision, experiment.protocol)


def _narrow(spec: EvaluationSpec, domain: Domain) -> EvaluationSpec:
    """Return the evaluation with a domain and as few others as possible."""
    data = spec.dataset
    if domain.severity is not None:
        labels = data.labels if data.generate_from else None
        severities, corruptions = (domain.severity,), (domain.name,)
        dataset = replace(data, severities=severities, corruptions=corruptions, clean=None, labels=labels)
    else:
        names = (domain.name,) if generates_corruptions(data) else data.corruptions
        dataset = replace(data, severities=data.severities[:1], corruptions=names)
    return replace(spec, dataset=dataset)


def _make_job(graph: _Graph, spec: EvaluationSpec, domain: Domain, images: str) -> Job:
    label, method = parse_method(spec.methods[0])
    cell = Cell(
        bundle=graph.bundle.sha256,
        model=graph.bundle.manifest.model,
        precision=graph.precision,
        provider=spec.provider,
        label=label,
        method=method.name,
        options=get_options(method),
        dataset=graph.protocol.dataset,
        domain=domain.name,
        severity=domain.severity,
        seed=spec.seed,
        subset=graph.protocol.subset,
        images=len(domain),
        images_sha256=images,
        classes=_describe_classes(spec, graph.protocol),
        batch_size=spec.batch_size,
        fozo=__version__,
        exif_orientation=spec.dataset.reading.exif_orientation,
        reduced_above=spec.dataset.reading.reduced_above,
        head=graph.bundle.manifest.head_name,
    )
    narrow = _narrow(spec, domain)
    return Job(cell, replace(narrow, bundle=graph.bundle.path, precision=graph.precision))


def _describe_classes(spec: EvaluationSpec, protocol: Protocol) -> str:
    order = protocol.class_order
    return spec.classes if order is None else f"{spec.classes}, class order {order}"
