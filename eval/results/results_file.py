"""`results.json`: everything needed to read, check and repeat a run. The schema is in docs/results.md."""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import PIL

from ..._version import __version__
from ...engine.bundle.bundle import Bundle
from ...engine.errors import InputError, reason
from ...engine.files import write_atomic
from ...engine.registry import get_options
from ...engine.runtime.cpu import count_cpus, read_cpu_features
from ...engine.runtime.network import Network
from ...engine.streams.adapter import Adapter
from ..protocol import Protocol
from .average import averages
from .outcome import Run

SCHEMA = 4


@dataclass
class Results:
    """Results of several methods under one protocol, with their provenance.

    Attributes:
        protocol: protocol of the stream.
        bundle: `path`, `sha256` of the manifest, `model`, `precision`, `graph_sha256`, `source`.
        engine: `provider`, `workers`, `micro_batch`.
        methods: `method`, `forwards_per_batch` and all `options`, by label.
        versions: versions of fozo, Python and the packages that compute.
        machine: system, architecture, processors.
        runs: one per seed that was begun.
        created: time of writing, UTC.
        key_sha256: hash of everything that determines the results, for `--resume`.
    """

    protocol: Protocol
    bundle: dict[str, Any]
    engine: dict[str, Any]
    methods: dict[str, Any]
    versions: dict[str, str]
    machine: dict[str, Any]
    runs: list[Run]
    created: str = ""
    key_sha256: str = ""

    @property
    def complete(self) -> bool:
        """True if every image of every domain was processed, for every seed."""
        return len(self.runs) == len(self.protocol.seeds) and all(run.complete for run in self.runs)

    def to_json(self) -> dict[str, Any]:
        """Return the document, with the averages that follow from the runs."""
        return {
            "schema": SCHEMA,
            "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "complete": self.complete,
            "key_sha256": self.key_sha256,
            "protocol": asdict(self.protocol),
            **{name: getattr(self, name) for name in _FACTS},
            "average": {label: asdict(average) for label, average in averages(self.runs).items()},
            "runs": [run.to_json() for run in self.runs],
        }

    def save(self, path: Path) -> None:
        """Write the document, atomically.

        Raises:
            OutputError: the file cannot be written; an older one is left as it was.
        """
        text = json.dumps(self.to_json(), indent=1, ensure_ascii=False, allow_nan=False)
        write_atomic(path, (_NUMBERS.sub(_on_one_line, text) + "\n").encode())


_FACTS = ("bundle", "engine", "methods", "versions", "machine")
# A list of numbers over several lines; no string of JSON has a line break in it.
_NUMBERS = re.compile(r"\[\n\s+(?:(?:-?\d[\d.e+-]*|null),?\s+)+\]")


def _on_one_line(match: re.Match[str]) -> str:
    return " ".join(match.group().split()).replace("[ ", "[").replace(" ]", "]")


def of_run(
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
    network = _network_of_all(run, adapters)
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
    facts = describe(bundle, precision, network)
    return Results(protocol, **facts, methods=describe_methods(adapters), runs=[run])


def _network_of_all(run: Run, adapters: Mapping[str, Adapter]) -> Network:
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


def describe(bundle: Bundle, precision: str, network: Network) -> dict[str, Any]:
    """Return the fields of `Results` about bundle, engine, versions and machine."""
    source = bundle.manifest.source.get(precision)
    cpu = read_cpu_features()
    return {
        "bundle": {
            "path": str(bundle.path),
            "sha256": bundle.sha256,
            "model": bundle.manifest.model,
            "precision": precision,
            "graph_sha256": bundle.graph_sha256(precision),
            "source": None if source is None else asdict(source),
        },
        "engine": {
            "provider": network.provider,
            "workers": network.workers,
            "micro_batch": network.micro_batch,
        },
        "versions": versions(),
        "machine": {
            "system": platform.system(),
            "architecture": cpu.architecture,
            "model": cpu.model,
            "int8_features": list(cpu.features),
            "cpus": count_cpus(),
            "cpus_online": os.cpu_count(),
        },
    }


def versions() -> dict[str, str]:
    """Return the versions of fozo and of the packages that its results depend on."""
    return {
        "fozo": __version__,
        "onnxruntime": onnxruntime.__version__,
        "numpy": np.__version__,
        "pillow": PIL.__version__,
        "python": platform.python_version(),
    }


def describe_methods(adapters: Mapping[str, Adapter]) -> dict[str, Any]:
    """Return the field of `Results` about the methods."""
    return {
        label: {
            "method": adapter.method.name,
            "forwards_per_batch": adapter.method.forwards,
            "options": get_options(adapter.method),
        }
        for label, adapter in adapters.items()
    }


def read(path: Path) -> Results:
    """Read a file that `Results.save` wrote.

    Raises:
        InputError: the file cannot be read, or holds no results of this schema.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise InputError(f"cannot read results from {path}: {reason(error)}") from error
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema != SCHEMA or "runs" not in content:
        raise InputError(
            f"expected results of `fozo adapt` with schema {SCHEMA} in {path}, found "
            f"{f'schema {schema}' if schema else 'something else'}; run fozo adapt again with this version"
        )
    try:
        return from_json(content)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(f"{path} is not a whole results file: {reason(error)}") from error


def from_json(content: Mapping[str, Any]) -> Results:
    """Return results from their document; damaged ones raise errors of dictionaries and constructors."""
    protocol = dict(content["protocol"])
    for name in ("severities", "seeds"):
        protocol[name] = tuple(protocol[name])
    names = {f.name for f in fields(Protocol)}
    return Results(
        Protocol(**{name: value for name, value in protocol.items() if name in names}),
        **{name: content[name] for name in _FACTS},
        runs=[Run.from_json(run) for run in content["runs"]],
        created=content["created"],
        key_sha256=content["key_sha256"],
    )
