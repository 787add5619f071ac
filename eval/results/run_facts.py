"""Facts about a run for its results file: bundle, engine, methods, versions and machine."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import onnxruntime
import PIL

from ..._version import __version__
from ...engine.bundle.bundle import Bundle
from ...engine.bundle.origin import list_origin
from ...engine.errors import InputError
from ...engine.registry import count_pull_backs, get_options
from ...engine.runtime.cpu import count_cpus, read_cpu_features
from ...engine.runtime.network import Network
from ...engine.streams.adapter import Adapter
from ..protocol import Protocol
from .outcome import Run
from .results_file import MethodEntry, Results


def results_of_run(
    run: Run, adapters: Mapping[str, Adapter], bundle: Bundle, dataset: str, precision: str = "fp32"
) -> Results:
    """Return the results of `fozo.evaluation.evaluate`, which can be saved.

    Args:
        run: the run that `evaluate` returned.
        adapters: the adapters that `evaluate` was given.
        bundle: bundle of their networks.
        dataset: name of the data.
        precision: name of the graph that they run.

    Raises:
        BundleError: the bundle has no such graph, or is damaged.
        InputError: the adapters are not of this run, bundle and graph, or one file cannot describe them all.
    """
    network = _find_network(run, adapters)
    info, classes = bundle.info(precision), network.info.classes
    # A network that is restricted to some classes does not tell which graph it runs.
    if network.info.name != info.name or (classes == info.classes and network.info.identity != info.identity):
        raise InputError(
            f"expected adapters on the {precision} graph of {bundle.path}, found others; give the bundle and "
            "the precision that they were opened with"
        )
    protocol = Protocol(
        dataset,
        setting="continual",
        severities=(),
        subset="all",
        seeds=(run.seed,),
        batch_size=max(next(iter(run.traces.values())).images),
        classes="all" if classes == info.classes else f"{classes} chosen",
    )
    facts = describe_environment(bundle, precision, network)
    return Results(protocol, **facts, methods=describe_methods(adapters), runs=[run])


def _find_network(run: Run, adapters: Mapping[str, Adapter]) -> Network:
    """Return the network of a run's adapters, after checking that all run the same graph."""
    if list(adapters) != list(run.traces):
        raise InputError(
            f"expected the adapters of the run, {', '.join(run.traces)}, found {', '.join(adapters)}; give "
            "those that evaluate was given"
        )
    if seeds := sorted({adapter.seed for adapter in adapters.values()} - {run.seed}):
        raise InputError(
            f"expected adapters with the seed {run.seed}, found {', '.join(map(str, seeds))}; results are of "
            "one seed, so open all adapters with the same"
        )
    networks = [adapter.network for adapter in adapters.values() if isinstance(adapter.network, Network)]
    kinds = {(network.info.identity, network.provider) for network in networks}
    if len(networks) < len(adapters) or len(kinds) != 1:
        raise InputError(
            "expected adapters that all run the same graph of a bundle with the same provider and classes, "
            "found others; evaluate those apart, and compare the files with fozo report"
        )
    return networks[0]


def describe_environment(bundle: Bundle, precision: str, network: Network) -> dict[str, Any]:
    """Return the fields of `Results` about bundle, engine, versions and machine."""
    source = bundle.manifest.source.get(precision)
    return {
        "bundle": {
            "path": str(bundle.path),
            "sha256": bundle.sha256,
            "model": bundle.manifest.model,
            "precision": precision,
            "graph_sha256": bundle.graph_sha256(precision),
            "source": None if source is None else asdict(source),
            "classes": network.info.classes,
            **list_origin(bundle.manifest),
        },
        "engine": {
            "provider": network.provider,
            "workers": network.workers,
            "micro_batch": network.micro_batch,
        },
        "versions": read_versions(),
        "machine": describe_machine(),
    }


def describe_machine() -> dict[str, Any]:
    """Return the field of `Results` about the machine."""
    cpu = read_cpu_features()
    return {
        "system": platform.system(),
        "architecture": cpu.architecture,
        "model": cpu.model,
        "int8_features": list(cpu.features),
        "cpus": count_cpus(),
        "cpus_online": os.cpu_count(),
    }


def read_versions() -> dict[str, str]:
    """Return the versions of fozo and of the packages that its results depend on."""
    return {
        "fozo": __version__,
        "onnxruntime": onnxruntime.__version__,
        "numpy": np.__version__,
        "pillow": PIL.__version__,
        "python": platform.python_version(),
    }


def describe_methods(adapters: Mapping[str, Adapter]) -> dict[str, MethodEntry]:
    """Return the field of `Results` about the methods."""
    return {
        label: MethodEntry(
            adapter.method.name,
            adapter.method.forwards,
            get_options(adapter.method),
            count_pull_backs(adapter.method),
        )
        for label, adapter in adapters.items()
    }
