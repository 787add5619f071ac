"""The results of a benchmark as a JSON document."""

from __future__ import annotations

import datetime
import json
import platform
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ..._version import __version__
from ...engine.bundle.head_description import list_head_facts
from ...engine.runtime.cpu import count_cpus, read_cpu_features
from .backends import TORCH
from .benchmark import BASELINE, Benchmark
from .samples import Measurement, Sample

SCHEMA = 3
_PACKAGES = ("onnxruntime", "onnxruntime-openvino", "numpy", "torch", "timm")


def to_document(benchmark: Benchmark) -> dict[str, Any]:
    """Return a JSON document: bundle, machine, versions, and cells with medians and all samples.

    A cell has `seconds` of a step, `time_by_no_adapt` and `time_by_first` (medians of the ratios within
    the rounds), `failure`, and the fields of `Backend` and `Sample`. Unknown values are null.
    """
    return {
        "schema": SCHEMA,
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "complete": benchmark.complete,
        "samples_per_cell": benchmark.samples_per_cell,
        "min_seconds": benchmark.min_seconds,
        "bundle": describe_bundle(benchmark),
        "machine": {
            "system": platform.system(),
            "cpu": asdict(read_cpu_features()),
            "cpus": count_cpus(),
            "load_before": benchmark.load[0],
            "load_after": benchmark.load[1],
        },
        "versions": package_versions(),
        "cells": [_describe_cell(benchmark, measurement) for measurement in benchmark.measurements],
    }


def format_document(benchmark: Benchmark) -> str:
    """Return the document as text."""
    return json.dumps(to_document(benchmark), indent=1, ensure_ascii=False) + "\n"


def package_versions() -> dict[str, str]:
    """Return the versions of fozo, Python, and the installed packages that compute."""
    versions = {"fozo": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def describe_bundle(benchmark: Benchmark) -> dict[str, Any]:
    """Return the bundle and the sizes of its measured graphs."""
    m = benchmark.bundle.manifest
    head = list_head_facts(m)
    used = {c.precision for c in benchmark.backends if c.provider != TORCH}
    return {
        "path": str(benchmark.bundle.path),
        "sha256": benchmark.bundle.sha256,
        "model": m.model,
        "graphs": {
            name: {"file": entry.file, "mb": m.files[entry.file].bytes / 1e6}
            for name, entry in m.graphs.items()
            if name in used
        },
        **({} if head is None else {"head": head}),
    }


def _describe_cell(benchmark: Benchmark, measurement: Measurement) -> dict[str, Any]:
    m, cell = measurement, measurement.cell
    to_baseline, to_first = benchmark.ratios(m)
    return {
        "backend": cell.backend.label,
        **asdict(cell.backend),
        "method": cell.method,
        "batch_size": cell.batch_size,
        "threads": cell.threads,
        "images_per_second": m.images_per_second,
        **{name: m.median(name) for name in Sample.__dataclass_fields__ if name != "steps"},
        f"time_by_{BASELINE}": to_baseline,
        "time_by_first": to_first,
        "failure": m.failure,
        "samples": [asdict(sample) for sample in m.samples],
    }
