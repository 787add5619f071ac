"""How long one step takes, side by side in one process: fozo on ONNX Runtime against eager PyTorch.

    python bench/step.py --model vit_tiny_patch16_224 --rounds 7
    python bench/step.py --model vit_base_patch16_224 --rounds 3

Every round runs each contestant once, in turn, so that a disturbance of the machine meets all of them.
Ratios are medians of the ratios of the rounds. Weights are random (they do not change the time).
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from eager_fozo import EagerFozo
from fozo.engine.adapter import Adapter
from fozo.engine.methods import method
from fozo.engine.model import SourceStatistics
from fozo.engine.network import Network
from fozo.export.exporter import Request, create_model, export_model


@click.command()
@click.option("--model", default="vit_tiny_patch16_224", show_default=True)
@click.option("--batch", default=64, show_default=True)
@click.option("--rounds", default=5, show_default=True)
@click.option("--workers", default=2, show_default=True, help="Threads, for ONNX Runtime and PyTorch alike.")
@click.option("--micro-batch", type=int, help="Default: fozo's choice.")
@click.option("--torch/--no-torch", "with_torch", default=True, help="Whether PyTorch takes part.")
@click.option("--torch-micro-batch", "parts", multiple=True, type=int, default=(64, 8), show_default=True)
def main(
    model: str,
    batch: int,
    rounds: int,
    workers: int,
    micro_batch: int | None,
    with_torch: bool,
    parts: tuple[int, ...],
) -> None:
    torch.set_num_threads(workers)
    torch.manual_seed(0)
    images = np.random.default_rng(0).integers(0, 256, (batch, 224, 224, 3), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        bundle = export_model(Request(model, random=True), Path(folder) / "bundle").bundle
        network = Network.open(bundle, workers=workers, micro_batch=micro_batch)
        contestants = _fozo(network, images)
        if with_torch:
            contestants |= _eager(create_model(Request(model, random=True)), images, parts)
        print(
            f"{model}, batch {batch}, {workers} threads, micro-batch {network.micro_batch}, "
            f"load before {os.getloadavg()[0]:.2f}"
        )
        _report(_measure(contestants, rounds), batch)


def _fozo(network: Network, images: np.ndarray) -> dict[str, Callable[[], Any]]:
    features = network(images).features
    source = SourceStatistics(features.mean(0), features.std(0, ddof=1), len(images))
    network.info = replace(network.info, source=source)
    adapters = {name: Adapter(network, method(name)) for name in ("no_adapt", "shift", "fozo")}
    return {f"fozo {name}": (lambda a=adapter: a.step(images)) for name, adapter in adapters.items()}


def _eager(model: Any, images: np.ndarray, parts: tuple[int, ...]) -> dict[str, Callable[[], Any]]:
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float().div(127.5).sub(1).contiguous()
    contestants: dict[str, Callable[[], Any]] = {}

    class InParts(EagerFozo):
        size = len(images)

        def features(self, images: torch.Tensor, prompts: torch.Tensor) -> torch.Tensor:
            return torch.cat(
                [super(InParts, self).features(part, prompts) for part in images.split(self.size)]
            )

    for size in parts:
        plain = EagerFozo(model, torch.zeros(1), torch.zeros(1))
        features = plain.features(pixels[:8], torch.zeros(1, 0, model.embed_dim))
        fozo = InParts(model, features.mean(0), features.std(0))
        fozo.size = size

        def no_adapt(size: int = size) -> None:
            with torch.inference_mode():
                for part in pixels.split(size):
                    model(part)

        contestants[f"torch no_adapt, {size} at a time"] = no_adapt
        contestants[f"torch fozo, {size} at a time"] = lambda fozo=fozo: fozo.step(pixels)
    return contestants


def _measure(contestants: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for round_ in range(rounds + 1):
        for name, run in contestants.items():
            begin = time.perf_counter()
            run()
            if round_:  # the first one warms up
                times[name].append(time.perf_counter() - begin)
    return times


def _report(times: dict[str, list[float]], batch: int) -> None:
    names = ("median ms", "min", "max", "img/s", "to fozo fozo", "to fozo no_adapt")
    print(" " * 34 + "".join(name.rjust(len(name) + 3) for name in names))
    for name, values in times.items():
        median = statistics.median(values)
        ratios = [
            statistics.median(v / base for v, base in zip(values, times[f"fozo {other}"], strict=True))
            for other in ("fozo", "no_adapt")
        ]
        cells = (f"{1e3 * median:12.0f}", f"{1e3 * min(values):6.0f}", f"{1e3 * max(values):6.0f}")
        rates = (f"{batch / median:8.1f}", f"{ratios[0]:15.2f}", f"{ratios[1]:19.2f}")
        print(f"{name:34s}" + "".join(cells + rates))


if __name__ == "__main__":
    main()
