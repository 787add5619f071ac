"""Process that takes one sample of `fozo bench`: `python -m fozo.eval.bench.worker REQUEST`.

The request is a JSON object (see `measure`), the answer one line of JSON on standard output. A new process
per sample measures peak memory and start-up correctly, and no sample profits from what an earlier one loaded.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np

from ...engine.bundle.bundle import Bundle
from ...engine.errors import FozoError
from ...engine.model import ImageArray
from ..processes.memory import peak_bytes
from .backends import TORCH

SOURCE_IMAGES = 4

# A function that adapts to its images once, and the number of images per forward.
Step = tuple[Callable[[], object], int]


def measure(request: Mapping[str, Any]) -> dict[str, Any]:
    """Load a backend, make one step, and time the following steps.

    Args:
        request: `bundle` (path), `head` (name or None), `provider`, `precision`, `chunk_size` (PyTorch:
            images per forward, or None), `method`, `batch_size`, `threads`, `min_seconds` (of timed steps;
            at least one is made), and `started` (`time.perf_counter()`, which all processes share, at the
            start of this process).

    Returns:
        `seconds` per step (median), `steps`, `micro_batch`, `peak_mb` of the whole process, `load_seconds`
        and `first_answer_seconds` since the start of the process.

    Raises:
        FozoError: the bundle cannot be used, or the method or provider does not exist.
    """
    bundle = Bundle.open(request["bundle"], request["head"])
    images = random_images(request["batch_size"], bundle.manifest.preprocessing.size)
    load = load_torch if request["provider"] == TORCH else load_adapter
    step, micro_batch = load(request, bundle, images)
    loaded = time.perf_counter()
    step()
    answered = time.perf_counter()
    seconds = time_steps(step, request["min_seconds"])
    return {
        "seconds": statistics.median(seconds),
        "steps": len(seconds),
        "micro_batch": micro_batch,
        "peak_mb": peak_bytes() / 1e6,
        "load_seconds": loaded - request["started"],
        "first_answer_seconds": answered - request["started"],
    }


def random_images(count: int, size: tuple[int, int]) -> ImageArray:
    """Return uint8 `[count, H, W, 3]`, the same in every process."""
    return np.random.default_rng(0).integers(0, 256, (count, *size, 3), dtype=np.uint8)


def time_steps(step: Callable[[], object], min_seconds: float) -> list[float]:
    """Return the seconds of each step, repeated for `min_seconds` and at least once."""
    seconds: list[float] = []
    while not seconds or sum(seconds) < min_seconds:
        begin = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - begin)
    return seconds


def load_adapter(request: Mapping[str, Any], bundle: Bundle, images: ImageArray) -> Step:
    """Load a method on a network of ONNX Runtime."""
    from ...engine.registry import count_pull_backs, count_views, list_activation_uses, parse_method
    from ...engine.runtime.network import Network
    from ...engine.streams.adapter import Adapter

    _, method = parse_method(request["method"])
    network = Network.open(
        bundle,
        request["precision"],
        gradients=count_pull_backs(method) > 0,
        activations=list_activation_uses([method]),
        workers=request["threads"],
        provider=request["provider"],
    )
    if network.info.source is None:
        network = network.with_source(_compute_random_statistics(network))
    adapter = Adapter(network, method)
    step = partial(adapter.step, images) if count_views(method) == 1 else _make_view_step(adapter, images)
    return step, network.micro_batch


def _make_view_step(adapter: Any, images: ImageArray) -> Callable[[], object]:
    """Return a step of a method that looks at views, which are parts of the images and made in the step."""
    from ...data.lazy_views import open_images  # Pillow would count in other methods' memory

    ids = [str(index) for index in range(len(images))]

    def step() -> object:
        with open_images(adapter.method, images, adapter.seed, ids) as batch:
            return adapter.step(batch)

    return step


def load_torch(request: Mapping[str, Any], bundle: Bundle, images: ImageArray) -> Step:
    """Load a method in eager PyTorch."""
    eager = import_module("fozo.export.eager")  # by name, as the evaluation does not depend on PyTorch
    options = {name: request[name] for name in ("method", "precision", "threads")}
    step = eager.make_step(bundle, images, chunk_size=request["chunk_size"], **options)
    return step, request["chunk_size"] or len(images)


def _compute_random_statistics(network: Any) -> Any:
    """Return source statistics of random images; the time of a step does not depend on their values."""
    from ...engine.model import SourceStatistics

    # One at a time: a larger batch than the one to be measured would raise the peak of memory.
    images = random_images(SOURCE_IMAGES, network.image_size)
    features = np.concatenate([network(image[None]).features for image in images])
    norms = network.info.norms
    fisher = np.zeros((len(norms), 2, max(norms.values())), np.float32) if norms else None
    channels = sum(activation.width for activation in network.info.activations)
    activations = (np.zeros(channels, np.float32), np.ones(channels, np.float32)) if channels else ()
    mean, std = features.mean(axis=0), features.std(axis=0, ddof=1)
    return SourceStatistics(mean, std, len(images), fisher, *activations)


def main() -> None:
    """Answer the request in the first argument; print one line and exit with code 1 on an error."""
    try:
        print(json.dumps(measure(json.loads(sys.argv[1]))))
    except FozoError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
