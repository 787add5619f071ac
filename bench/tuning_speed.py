"""Time and memory of a step of ZIP beside the same in PyTorch.

    python bench/tuning_speed.py clip-base --images DIR --out bench/results/tuning-speed.json

A step reads the losses of one batch of 128 images under ten contexts of eight vectors, for 100 classes. The
PyTorch side does what the official code does: each of its ten calls encodes the images again, and each text
whole, padded to 77 tokens. The calls are alike, so one is timed and counts ten times. Its images are decoded
beforehand, those of fozo within the step. All arms take turns, and medians are written. Memory is the peak
of a process that takes one step.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.runtime.cpu import count_cpus
from fozo.eval.processes.memory import peak_bytes
from fozo.eval.tuning.tuning_run import TuningRun, open_run
from fozo.eval.tuning.tuning_spec import TuningSpec
from measuring import describe_machine, now, run_alone, take_turns

CLASSES, SHOTS, BATCH, VECTORS, CALLS = 100, 2, 128, 8, 10


def main() -> None:
    """Write times and memory as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path, help="CLIP with random weights")
    parser.add_argument("--images", type=Path, required=True, help="folder with class folders of ImageNet")
    parser.add_argument("--samples", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    environment, load = describe_machine(), os.getloadavg()[0]
    environment["machine"]["load_before"] = load
    bundle = Bundle.open(options.bundle)
    with tempfile.TemporaryDirectory() as folder:
        link_images(options.images, Path(folder))
        arms = make_arms(bundle, Path(folder))
        document = {
            "created": now(),
            **environment,
            "model": bundle.manifest.model,
            "workers": count_cpus(),
            "classes": CLASSES,
            "batch": BATCH,
            "calls": CALLS,
            "seconds": take_turns(arms, options.samples),
            "peak_mb": {
                precision: run_alone(measure_memory, str(options.bundle), precision, folder)
                for precision in bundle.manifest.graphs
            },
        }
    document["seconds"]["open_clip"] *= CALLS
    options.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def link_images(images: Path, folder: Path) -> None:
    """Make a data set of 100 classes with two images each, of links to files."""
    files = sorted(path for path in images.glob("*/*") if path.is_file())
    names = sorted(path.name for path in images.iterdir())[:CLASSES]
    for index, name in enumerate(names):
        (folder / name).mkdir()
        for shot in range(SHOTS):
            file = files[(SHOTS * index + shot) % len(files)]
            (folder / name / f"{shot}{file.suffix}").symlink_to(file.resolve())


def open_zip(bundle: Bundle, precision: str, folder: Path) -> TuningRun:
    """Return ZIP as published: random vectors, and fresh crops in every step."""
    spec = TuningSpec(
        folder,
        method="zip",
        shots=SHOTS,
        words="",
        vectors=VECTORS,
        budget=CALLS,
        batch=BATCH,
        crops=None,
        rate=0.01,
        precision=precision,
    )
    return open_run(bundle, spec)


def make_arms(bundle: Bundle, folder: Path) -> dict[str, Callable[[], object]]:
    """Return a step of fozo by precision, and a call of the official way in PyTorch."""
    arms: dict[str, Callable[[], object]] = {}
    for precision in bundle.manifest.graphs:
        run = open_zip(bundle, precision, folder)
        states = [run.training.init(run.initial, 1)]

        def take_step(run: TuningRun = run, states: list[Any] = states) -> object:
            states[0] = run.training.advance(states[0])  # every step has crops of its own
            return states[0]

        arms[f"fozo {precision}"] = take_step
    return {**arms, "open_clip": make_call(bundle)}


def make_call(bundle: Bundle) -> Callable[[], object]:
    """Return the loss of a batch under one context, with images and whole texts encoded in PyTorch."""
    import open_clip
    import torch

    torch.set_num_threads(count_cpus())
    model = open_clip.create_model(bundle.manifest.model, pretrained=None).eval()
    sentences = [f"{'X ' * VECTORS}{name}." for name in (bundle.manifest.class_names or ())[:CLASSES]]
    tokens = open_clip.get_tokenizer(bundle.manifest.model)(sentences)
    size = bundle.manifest.preprocessing.size
    pixels = torch.from_numpy(np.random.default_rng(0).random((BATCH, 3, *size), np.float32))
    labels = torch.arange(BATCH) % CLASSES

    @torch.inference_mode()
    def compute_loss() -> object:
        texts = torch.nn.functional.normalize(model.encode_text(tokens), dim=-1)
        images = torch.nn.functional.normalize(model.encode_image(pixels), dim=-1)
        return torch.nn.functional.cross_entropy(100 * images @ texts.T, labels).item()

    return compute_loss


def measure_memory(bundle: str, precision: str, folder: str) -> float:
    """Return the peak memory in MB of a process that takes a step of ZIP."""
    with open_zip(Bundle.open(bundle), precision, Path(folder)) as run:
        run.training.advance(run.training.init(run.initial, 1))
    return peak_bytes() / 1e6


if __name__ == "__main__":
    main()
