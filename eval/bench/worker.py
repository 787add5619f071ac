"""One sample of `fozo bench`, in a process of its own: `python -m fozo.eval.bench.worker REQUEST`.

The request is a JSON object (see `measure`), the answer one line of JSON on standard output. A fresh process
per sample makes peak memory and start-up honest, and lets nothing that ran before warm up what comes next.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np

from ...engine.bundle.bundle import Bundle
from ...engine.errors import FozoError
from ...engine.model import ImageArray
from ..processes.memory import peak_bytes

TORCH = "torch"  # the provider that is PyTorch and not one of ONNX Runtime's
SOURCE_IMAGES = 4

# What makes one step on its images, and how many images it computes at a time.
Contestant = tuple[Callable[[], object], int]


def measure(request: Mapping[str, Any]) -> dict[str, Any]:
    """Loads a contestant, lets it answer once, and times its steps.

    Args:
        request: `bundle` (path), `provider`, `precision`, `part` (PyTorch: images at a time, or None),
            `method`, `batch_size`, `threads`, `min_seconds` (of timed steps; at least one is made), and
            `started` (`time.perf_counter()`, which all processes share, when this process was begun).

    Returns:
        `seconds` per step (median), `steps`, `micro_batch`, `peak_mb` of the whole process, `load_seconds`
        and `first_answer_seconds` since the process was begun.

    Raises:
        FozoError: the bundle cannot be used, or there is no such method or provider.
    """
    bundle = Bundle.open(request["bundle"])
    images = random_images(request["batch_size"], bundle.manifest.preprocessing.size)
    step, micro_batch = _contestant(request, bundle, images)
    loaded = time.perf_counter()
    step()
    answered = time.perf_counter()
    seconds = timed(step, request["min_seconds"])
    return {
        "seconds": statistics.median(seconds),
        "steps": len(seconds),
        "micro_batch": micro_batch,
        "peak_mb": peak_bytes() / 1e6,
        "load_seconds": loaded - request["started"],
        "first_answer_seconds": answered - request["started"],
    }


def random_images(count: int, size: tuple[int, int]) -> ImageArray:
    """The same uint8 `[count, H, W, 3]` in every process."""
    return np.random.default_rng(0).integers(0, 256, (count, *size, 3), dtype=np.uint8)


def timed(step: Callable[[], object], min_seconds: float) -> list[float]:
    """Seconds of each step: as many steps as `min_seconds` take, and at least one."""
    seconds: list[float] = []
    while not seconds or sum(seconds) < min_seconds:
        begin = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - begin)
    return seconds


def _contestant(request: Mapping[str, Any], bundle: Bundle, images: ImageArray) -> Contestant:
    """Loads what shall be measured. Neither kind imports the libraries of the other."""
    if request["provider"] != TORCH:
        return _network_contestant(request, bundle, images)
    # Named and not imported: the evaluation does not depend on the export.
    eager = import_module("...export.eager", __package__)
    options = {name: request[name] for name in ("method", "precision", "threads", "part")}
    return eager.contestant(bundle, images, **options), request["part"] or len(images)


def _network_contestant(request: Mapping[str, Any], bundle: Bundle, images: ImageArray) -> Contestant:
    from ...engine.registry import parse_method
    from ...engine.runtime.network import Network
    from ...engine.streams.adapter import Adapter

    network = Network.open(
        bundle, request["precision"], workers=request["threads"], provider=request["provider"]
    )
    if network.info.source is None:
        network.info = replace(network.info, source=_some_statistics(network))
    adapter = Adapter(network, parse_method(request["method"])[1])
    return lambda: adapter.step(images), network.micro_batch


def _some_statistics(network: Any) -> Any:
    """Source statistics of random images: the time of a step does not depend on their values."""
    from ...engine.model import SourceStatistics

    # One at a time: a larger batch than the one to be measured would raise the peak of memory.
    images = random_images(SOURCE_IMAGES, network.image_size)
    features = np.concatenate([network(image[None]).features for image in images])
    return SourceStatistics(features.mean(axis=0), features.std(axis=0, ddof=1), len(images))


def main() -> None:
    """Answers the request in the first argument; exit code 1 and one line on an error."""
    try:
        print(json.dumps(measure(json.loads(sys.argv[1]))))
    except FozoError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
