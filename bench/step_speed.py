"""Time and memory of compiled steps beside the engine's steps.

    python bench/step_speed.py tiny base --out bench/results/step-speed.json

Both sides take turns, each in a process of its own with a pause before each step, as its neighbour's threads
may still be looking for work. Medians are written, with the median of the ratios of neighbours. ONNX Runtime
gets as many threads as the engine has workers. Memory is the peak of a process that takes three steps.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fozo
import numpy as np
import onnxruntime
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.runtime.cpu import count_cpus
from fozo.eval.processes.memory import peak_bytes
from measuring import describe_machine, now, prepare_alone, run_alone

METHODS = ("pizo", "neo")
BATCHES = (1, 8, 64)
STEPS = 3  # of a process whose memory is measured
PAUSE = 0.2  # seconds before each step


def main() -> None:
    """Write times and memory as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundles", type=Path, nargs="+")
    parser.add_argument("--samples", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20, help="after which a cell takes no more samples")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    environment, load = describe_machine(), os.getloadavg()[0]
    environment["machine"]["load_before"] = load
    cells = []
    with tempfile.TemporaryDirectory() as folder:
        for path in options.bundles:
            for precision in Bundle.open(path).manifest.graphs:
                for method in METHODS:
                    step = Path(folder) / f"{path.name}-{precision}-{method}"
                    compile_to(step, path, precision, method)
                    for batch in BATCHES:
                        cells.append(measure(step, path, precision, method, batch, options))
                        print(cells[-1], flush=True)
    document = {"created": now(), **environment, "workers": count_cpus(), "cells": cells}
    options.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def compile_to(folder: Path, bundle: Path, precision: str, method: str) -> None:
    """Write the graphs of a step, without the comparison that `fozo compile` makes."""
    from fozo.export.compile.step_folder import StepRequest, build_request, serialize, use_graph_generator

    configured = use_graph_generator(fozo.method(method))
    request = StepRequest(Bundle.open(bundle), configured, precision)
    with fozo.Network.open(bundle, precision) as network:
        step = build_request(request, configured, network)
    folder.mkdir()
    for name, model in (("step", step.model), ("init", step.init)):
        (folder / f"{name}.onnx").write_bytes(serialize(model))


def measure(
    step: Path, bundle: Path, precision: str, method: str, batch: int, options: argparse.Namespace
) -> dict[str, Any]:
    """Return one row: seconds of a step by graph and engine, their ratio, and peak memory of both."""
    size = Bundle.open(bundle).manifest.preprocessing.size
    images = np.random.default_rng(0).integers(0, 256, (batch, *size, 3), np.uint8)
    seconds: dict[str, list[float]] = {"engine": [], "graph": []}
    with (
        prepare_alone(prepare_engine, bundle, precision, method, images) as run_engine,
        prepare_alone(prepare_graph, step, images) as run_graph,
    ):
        end = None
        while len(seconds["graph"]) <= options.samples and (end is None or time.perf_counter() < end):
            for label, take_step in (("engine", run_engine), ("graph", run_graph)):
                time.sleep(PAUSE)
                seconds[label].append(take_step())
            end = end or time.perf_counter() + options.seconds  # the first round is not counted
    engine, graph = seconds["engine"][1:], seconds["graph"][1:]
    return {
        "model": Bundle.open(bundle).manifest.model,
        "precision": precision,
        "method": method,
        "batch": batch,
        "samples": len(graph),
        "engine_seconds": statistics.median(engine),
        "graph_seconds": statistics.median(graph),
        "ratio": statistics.median(g / e for g, e in zip(graph, engine, strict=True)),
        "engine_mb": run_alone(measure_engine_memory, bundle, precision, method, images),
        "graph_mb": run_alone(measure_graph_memory, step, images),
    }


def prepare_engine(bundle: Path, precision: str, method: str, images: Any) -> Callable[[], object]:
    """Return a function that takes the next step over the same images with the engine."""
    return functools.partial(open_engine(bundle, precision, method), images)


def prepare_graph(step: Path, images: Any) -> Callable[[], object]:
    """Return a function that takes the next step over the same images with a graph."""
    return functools.partial(open_graph(step), images)


def open_engine(bundle: Path, precision: str, method: str) -> Callable[[Any], object]:
    """Return a function that takes a step with the engine."""
    network = fozo.Network.open(bundle, precision)
    options = {"generator": "philox"} if hasattr(fozo.method(method), "generator") else {}
    return fozo.Adapter(network, fozo.method(method, **options)).step


def open_graph(step: Path) -> Callable[[Any], object]:
    """Return a function that takes a step with the graph, as any host does."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = count_cpus()
    session = onnxruntime.InferenceSession(step / "step.onnx", options)
    init = onnxruntime.InferenceSession(step / "init.onnx")
    names = [output.name for output in session.get_outputs()]
    state = dict(zip([output.name for output in init.get_outputs()], init.run(None, {}), strict=True))

    def take_step(images: Any) -> object:
        outputs = dict(zip(names, session.run(None, {"images": images, **state}), strict=True))
        state.update({name: outputs[f"next_{name}"] for name in state})
        return outputs

    return take_step


def measure_engine_memory(bundle: Path, precision: str, method: str, images: Any) -> float:
    """Return the peak memory in MB of a process that takes steps with the engine."""
    return measure_peak(open_engine(bundle, precision, method), images)


def measure_graph_memory(step: Path, images: Any) -> float:
    """Return the peak memory in MB of a process that takes steps with a graph."""
    return measure_peak(open_graph(step), images)


def measure_peak(take_step: Callable[[Any], object], images: Any) -> float:
    """Return the peak memory of this process in MB after some steps."""
    for _ in range(STEPS):
        take_step(images)
    return peak_bytes() / 1e6


if __name__ == "__main__":
    main()
