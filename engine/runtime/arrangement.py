"""Arrangements: how a batch is split over workers, the default, and the fastest one remembered per machine.

Results do not depend on the arrangement (docs/engine.md, determinism), so a measurement may decide it. The
fastest one is stored in a small JSON file in the user's cache folder, per machine, version of ONNX Runtime,
provider and graph. That file is a convenience: if anything is wrong with it, the defaults are used.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime as ort

from ..errors import InputError, OutputError
from ..files import write_atomic
from ..ordinary_files import read_json
from ..records import RecordError, load_record, to_dict
from .cpu import count_cpus, read_cpu_features

# Activations of about this many values per worker stay close to the processor: ViT-B runs 2 images at a
# time, and so does ViT-Tiny (docs/notebook/2026-11-21-speed.md; the optimum is flat, and less is leaner).
MICRO_BATCH_VALUES = 100_000
SCHEMA = 1
CACHE_FILE = "arrangements.json"


def choose_micro_batch(values_per_image: int) -> int:
    """Return the default number of images per call, for so many activations per image and layer."""
    return max(2, min(32, MICRO_BATCH_VALUES // max(1, values_per_image)))


@dataclass(frozen=True)
class Arrangement:
    """The split of a batch.

    Attributes:
        workers: calls of the runtime that run at the same time.
        micro_batch: images per call.
    """

    workers: int
    micro_batch: int

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            InputError: one of them is no integer of at least 1.
        """
        for name, value in (("workers", self.workers), ("micro-batch", self.micro_batch)):
            if type(value) is not int or value < 1:
                raise InputError(f"{name} must be an integer of at least 1, found {value!r}")


def store_arrangement(graph_sha256: str, provider: str, arrangement: Arrangement) -> None:
    """Store an arrangement for this machine, version of ONNX Runtime, provider and graph.

    Raises:
        OutputError: the cache folder cannot be written.
    """
    try:
        path = locate_cache_folder() / CACHE_FILE
        stored = {**_read(path), _build_key(graph_sha256, provider): arrangement}
        entries = {key: to_dict(value) for key, value in stored.items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps({"schema": SCHEMA, "arrangements": entries}, indent=1).encode())
    except (OSError, RuntimeError, OutputError) as error:
        raise OutputError(
            f"cannot remember the arrangement: {error}; name a folder that can be written with FOZO_CACHE_DIR"
        ) from error


def load_arrangement(graph_sha256: str, provider: str) -> Arrangement | None:
    """Return the stored arrangement for this machine, version of ONNX Runtime, provider and graph, if any."""
    try:
        return _read(locate_cache_folder() / CACHE_FILE).get(_build_key(graph_sha256, provider))
    except RuntimeError:  # nowhere to look
        return None


def locate_cache_folder() -> Path:
    """Return the folder for data that can be computed again: `FOZO_CACHE_DIR`, or the system's cache folder.

    Raises:
        RuntimeError: the system does not say where the user's files are.
    """
    if configured := os.environ.get("FOZO_CACHE_DIR"):
        return Path(configured)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "fozo"
    variable, usual = (
        ("LOCALAPPDATA", "AppData/Local") if sys.platform == "win32" else ("XDG_CACHE_HOME", ".cache")
    )
    folder = Path(os.environ.get(variable, ""))
    return (folder if folder.is_absolute() else Path.home() / usual) / "fozo"


def _build_key(graph_sha256: str, provider: str) -> str:
    """Return everything that decides on speed, in words, so that people can read the file."""
    cpu = read_cpu_features()
    machine = f"{cpu.model}, {count_cpus()} processors, {cpu.architecture}"
    return f"{machine}; ONNX Runtime {ort.__version__}; {provider}; {graph_sha256}"


def _read(path: Path) -> dict[str, Arrangement]:
    """Return the usable entries of a file; none if it is missing or not one of ours."""
    try:
        content = read_json(path)
        entries = content["arrangements"] if content["schema"] == SCHEMA else {}
        arrangements = {key: _parse_entry(entry) for key, entry in entries.items()}
        return {key: value for key, value in arrangements.items() if value is not None}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _parse_entry(raw: Any) -> Arrangement | None:
    try:
        return load_record(Arrangement, raw, CACHE_FILE)
    except (RecordError, InputError):
        return None
