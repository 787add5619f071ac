"""`results.json`: everything needed to read, check and repeat a run. The schema is in docs/results.md."""

from __future__ import annotations

import datetime
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import PIL

from .._version import __version__
from ..engine.adapter import Adapter
from ..engine.bundle import Bundle
from ..engine.cpu import available_cpus
from ..engine.files import write_atomic
from ..engine.methods import options_of
from ..engine.network import Network
from .domains import CLEAN
from .protocol import Protocol
from .runner import DomainResult, MethodResult

SCHEMA = 1


def document(
    bundle: Bundle,
    precision: str,
    network: Network,
    adapters: Mapping[str, Adapter],
    protocol: Protocol,
    results: Sequence[DomainResult],
    *,
    complete: bool,
) -> dict[str, Any]:
    """The results as a JSON document."""
    return {
        "schema": SCHEMA,
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "complete": complete,
        "protocol": asdict(protocol),
        "bundle": _bundle(bundle, precision),
        "engine": {
            "provider": network.provider,
            "workers": network.workers,
            "micro_batch": network.micro_batch,
        },
        "methods": {
            label: {
                "method": adapter.method.name,
                "forwards_per_batch": adapter.method.forwards,
                "options": options_of(adapter.method),
            }
            for label, adapter in adapters.items()
        },
        "versions": {
            "fozo": __version__,
            "onnxruntime": onnxruntime.__version__,
            "numpy": np.__version__,
            "pillow": PIL.__version__,
            "python": platform.python_version(),
        },
        "machine": {
            "system": platform.system(),
            "architecture": platform.machine(),
            "cpus": available_cpus(),
            "cpus_online": os.cpu_count(),
        },
        "domains": [_domain(result) for result in results],
        "average": average(results),
    }


def average(results: Sequence[DomainResult]) -> dict[str, dict[str, float]]:
    """Per method: unweighted means of accuracy, top-5 and ECE over the corruptions, and totals of the rest.

    Clean images and a domain that was interrupted do not enter the means, unless there is nothing else.
    """
    begun = [result for result in results if any(part.batches for part in result.methods.values())]
    counted = [result for result in begun if result.complete and result.domain.name != CLEAN] or begun
    labels = begun[0].methods if begun else {}
    return {
        label: _average([r.methods[label] for r in counted], [r.methods[label] for r in begun])
        for label in labels
    }


def _average(counted: Sequence[MethodResult], parts: Sequence[MethodResult]) -> dict[str, float]:
    seconds, images = sum(part.seconds for part in parts), sum(part.tally.images for part in parts)
    batches = sum(part.batches for part in parts)
    return {
        "accuracy": float(np.mean([part.tally.accuracy for part in counted])),
        "top5_accuracy": float(np.mean([part.tally.top5_accuracy for part in counted])),
        "ece": float(np.mean([part.tally.ece for part in counted])),
        "forwards_per_batch": sum(part.forwards for part in parts) / batches,
        "images_per_second": images / seconds if seconds else 0.0,
        "peak_bytes": max(part.peak_bytes for part in parts),
        "guarded": sum(part.guarded for part in parts),
    }


def save(path: Path, content: Mapping[str, Any]) -> None:
    """Writes results atomically.

    Raises:
        OutputError: the file cannot be written; an older one is left as it was.
    """
    write_atomic(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def _bundle(bundle: Bundle, precision: str) -> dict[str, Any]:
    source = bundle.manifest.source.get(precision)
    return {
        "path": str(bundle.path),
        "sha256": bundle.sha256,
        "model": bundle.manifest.model,
        "precision": precision,
        "graph_sha256": bundle.graph_sha256(precision),
        "source": None if source is None else asdict(source),
    }


def _domain(result: DomainResult) -> dict[str, Any]:
    domain = result.domain
    return {
        "name": domain.name,
        "generated": domain.generated,
        "images": len(domain),
        "ids_sha256": domain.ids_sha256(),
        "complete": result.complete,
        "seconds": result.seconds,
        "methods": {label: _method(part) for label, part in result.methods.items()},
    }


def _method(part: MethodResult) -> dict[str, Any]:
    tally = part.tally
    return {
        "images": tally.images,
        "correct": tally.top1,
        "correct_top5": tally.top5,
        "accuracy": tally.accuracy,
        "top5_accuracy": tally.top5_accuracy,
        "ece": tally.ece,
        "bins": {
            "images": tally.bin_images.astype(int).tolist(),
            "confidence": tally.bin_confidence.tolist(),
            "correct": tally.bin_correct.astype(int).tolist(),
        },
        "batches": part.batches,
        "forwards": part.forwards,
        "guarded": part.guarded,
        "seconds": part.seconds,
        "images_per_second": part.images_per_second,
        "peak_bytes": part.peak_bytes,
    }
