"""Miniature data sets with classes of their own, a bundle with learnt contexts, and transfers."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from dataset_doubles import put
from fozo.data.image_reader import ImageReader
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.runtime.class_head import make_head
from fozo.engine.runtime.network import Network
from fozo.eval.streaming.experiment import Experiment
from fozo.eval.transfer.transfer import prepare_transfer
from fozo.eval.transfer.transfer_spec import TransferSpec
from split_doubles import write_split
from tune_doubles import make_tuning_bundle

CONTEXT = np.random.default_rng(5).normal(size=(3, 4)).astype(np.float32)
SETS = {
    "pets": ("split_zhou_OxfordPets.json", "images", ("cat", "dog")),
    "land": ("split_zhou_EuroSAT.json", "2750", ("forest", "sea lake", "a cat at")),
    "textures": ("split_zhou_DescribableTextures.json", "images", ("dog at", "doge", "catt", "god")),
}
NAMES = ("oxford_pets", "eurosat", "dtd")


def make_folder(folder: Path) -> Path:
    """Write a bundle with a learnt context of other classes, and data sets of 6, 9 and 12 test images."""
    generator = np.random.default_rng(0)
    for name, (file, images, classes) in SETS.items():
        rows = [[f"{label}-{i}.png", label, text] for label, text in enumerate(classes) for i in range(3)]
        write_split(folder / name, {"train": rows, "test": rows}, file)
        for path, *_ in rows:
            put(folder / name / images / path, generator.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    bundle = make_tuning_bundle(folder)
    bundle.with_head("learnt", make_head(bundle, ["cow"], ["{}."], context=CONTEXT))
    return folder


def prepare(folder: Path, *methods: str, names: tuple[str, ...] = tuple(SETS), **options: Any) -> Experiment:
    """Open a transfer to some of the data sets."""
    targets = tuple(str(folder / name) for name in names)
    defaults: dict[str, Any] = {"context": "learnt", "batch_size": 4, "workers": 1}
    spec = TransferSpec(targets, methods or ("no_adapt",), **{**defaults, **options})
    return prepare_transfer(Bundle.open(folder / "clip"), spec)


def run(experiment: Experiment, batches: int | None = None) -> Experiment:
    """Run a transfer, to its end or for some batches."""
    with experiment.method_networks:
        for _ in islice(experiment.run(), batches):
            pass
    return experiment


def predict(folder: Path, name: str, templates: list[str], context: Any = None) -> tuple[Any, Any]:
    """Return labels and predictions of a head of the data set's own classes, in one batch."""
    _, images, classes = SETS[name]
    bundle = Bundle.open(folder / "clip")
    head = make_head(bundle, classes, templates, context=context)
    read = ImageReader().prepare(bundle.manifest.preprocessing)
    pixels = [
        read(str(folder / name / images / f"{k}-{i}.png")) for k in range(len(classes)) for i in range(3)
    ]
    with Network.open(bundle, workers=1) as network:
        logits = network.with_classifier(head.weight)(np.stack(pixels)).logits
    return np.repeat(np.arange(len(classes)), 3), logits.argmax(1)
