"""Which arrangement of the work is fastest on this machine: measured once, and remembered.

Results do not depend on the arrangement (docs/engine.md, determinism), so it may follow from a measurement.
What was measured is kept in a small JSON file in the user's cache folder, per machine, version of ONNX
Runtime, provider and graph. That file is a convenience: whatever is wrong with it, the defaults are used.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnxruntime as ort

from ..errors import InputError, OutputError
from ..files import write_atomic
from ..model import ImageArray
from .cpu import available_cpus, cpu_features

if TYPE_CHECKING:  # a network asks this module for what was remembered
    from .network import Network

SCHEMA = 1
CACHE_FILE = "arrangements.json"
MICRO_BATCHES = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class Arrangement:
    """How a batch is split.

    Attributes:
        workers: calls of the runtime that run at the same time.
        micro_batch: images per call.
    """

    workers: int
    micro_batch: int

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
            InputError: one of them is no integer of at least 1.
        """
        for name, value in (("workers", self.workers), ("micro-batch", self.micro_batch)):
            if type(value) is not int or value < 1:
                raise InputError(f"{name} must be an integer of at least 1, found {value!r}")


@dataclass(frozen=True)
class Measured:
    """An arrangement and its speed.

    Attributes:
        arrangement: what was measured.
        seconds: median time per image of one forward.
    """

    arrangement: Arrangement
    seconds: float


def arrangements() -> list[Arrangement]:
    """What `tune` compares: one worker and as many as there are processors, each with all micro-batches."""
    return [Arrangement(w, size) for w in sorted({1, available_cpus()}) for size in MICRO_BATCHES]


def tune(
    network: Network,
    images: ImageArray,
    *,
    rounds: int = 3,
    on_step: Callable[[int], None] = lambda images: None,
) -> list[Measured]:
    """Measures all arrangements of one network, in turn, so that a busy moment slows all of them.

    Args:
        network: opened with as many workers as there are processors; its session serves all arrangements.
        images: uint8 `[N, H, W, 3]`, a batch as it will come later: what suits 64 images need not suit one.
        rounds: how often each is measured, at least 1.
        on_step: called after each measurement with its number of images; there are
            `rounds * len(arrangements())` of them.

    Returns:
        One record per arrangement, the fastest first.

    Raises:
        InputError: images of another type or shape, or no rounds.
    """
    if rounds < 1:
        raise InputError(f"rounds must be at least 1, found {rounds}")
    times: dict[Arrangement, list[float]] = {each: [] for each in arrangements()}
    for number in range(rounds):
        for each, seconds in times.items():
            with network.arranged(each.workers, each.micro_batch) as arranged:
                if number == 0:  # memory is asked for once per size
                    arranged(images[: each.workers * each.micro_batch])
                start = time.perf_counter()
                arranged(images)
                seconds.append((time.perf_counter() - start) / len(images))
            on_step(len(images))
    measured = [Measured(each, statistics.median(seconds)) for each, seconds in times.items()]
    return sorted(measured, key=lambda each: each.seconds)


def remember(graph_sha256: str, provider: str, arrangement: Arrangement) -> None:
    """Keeps an arrangement for this machine, version of ONNX Runtime, provider and graph.

    Raises:
        OutputError: the cache folder cannot be written.
    """
    try:
        path = cache_folder() / CACHE_FILE
        known = {**_read(path), _key(graph_sha256, provider): arrangement}
        entries = {key: asdict(value) for key, value in known.items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps({"schema": SCHEMA, "arrangements": entries}, indent=1).encode())
    except (OSError, RuntimeError, OutputError) as error:
        raise OutputError(
            f"cannot remember the arrangement: {error}; name a folder that can be written with FOZO_CACHE_DIR"
        ) from error


def remembered(graph_sha256: str, provider: str) -> Arrangement | None:
    """What was kept for this machine, version of ONNX Runtime, provider and graph, if anything usable was."""
    try:
        return _read(cache_folder() / CACHE_FILE).get(_key(graph_sha256, provider))
    except RuntimeError:  # nowhere to look
        return None


def cache_folder() -> Path:
    """Where fozo keeps what it can find out again: `FOZO_CACHE_DIR`, or what the system has for this.

    Raises:
        RuntimeError: the system does not say where the user's files are.
    """
    if chosen := os.environ.get("FOZO_CACHE_DIR"):
        return Path(chosen)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "fozo"
    variable, usual = (
        ("LOCALAPPDATA", "AppData/Local") if sys.platform == "win32" else ("XDG_CACHE_HOME", ".cache")
    )
    folder = Path(os.environ.get(variable, ""))
    return (folder if folder.is_absolute() else Path.home() / usual) / "fozo"


def _key(graph_sha256: str, provider: str) -> str:
    """All that decides on speed, in words, so that the file can be read by people."""
    cpu = cpu_features()
    machine = f"{cpu.model}, {available_cpus()} processors, {cpu.architecture}"
    return f"{machine}; ONNX Runtime {ort.__version__}; {provider}; {graph_sha256}"


def _read(path: Path) -> dict[str, Arrangement]:
    """The usable entries of a file; none if there is no such file or it is not one of ours."""
    try:
        content = json.loads(path.read_bytes())
        known = content["arrangements"] if content["schema"] == SCHEMA else {}
        return {key: found for key, entry in known.items() if (found := _entry(entry))}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _entry(raw: Any) -> Arrangement | None:
    try:
        return Arrangement(**raw)
    except (TypeError, InputError):
        return None
