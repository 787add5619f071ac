"""Coloured images in published layouts, and a bundle that compares mean colours with texts."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from command_doubles import start_process
from dataset_doubles import put
from doubles import fozo_command
from fozo.engine.bundle.bundle import Bundle
from fozo.eval.tuning.tuning_run import TuningRun, open_run
from fozo.eval.tuning.tuning_spec import TuningSpec
from text_doubles import make_text_bundle

COLOURS = {"cat": (210, 50, 40), "cow": (50, 40, 200), "dog": (60, 190, 50)}
TRAIN, TEST = 6, 4


def make_colours(folder: Path) -> Path:
    """Write `train/` and `test/` with class folders of noisy colours; return the folder."""
    generator = np.random.default_rng(0)
    for part, count in (("train", TRAIN), ("test", TEST)):
        for name, colour in COLOURS.items():
            for number in range(count):
                noise = np.asarray(colour) + generator.normal(0, 50, (8, 8, 3))
                put(folder / part / name / f"{number}.png", np.clip(noise, 0, 255).astype(np.uint8))
    return folder


def make_tuning_bundle(folder: Path, *, pixels: bool = False, side: int = 4) -> Bundle:
    """Return a bundle whose text graph projects sums of vectors, and needs no PyTorch."""
    return make_text_bundle(folder, ("cat", "dog", "cow"), ("{} at a dog.",), pixels=pixels, side=side)


def make_spec(data: Path, **options: Any) -> TuningSpec:
    """Return a short run without gradients."""
    defaults: dict[str, Any] = {
        "method": "zo-sapt",
        "shots": 4,
        "vectors": 2,
        "words": "",
        "epochs": 8,
        "batch": None,
        "rate": 0.1,
        "pairs": 2,
        "dimension": 8,
        "workers": 1,
    }
    return TuningSpec(data, **{**defaults, **options})


def open_colours(folder: Path, **options: Any) -> TuningRun:
    """Open a run on a new bundle and new images, or on those that are in the folder already."""
    data = folder / "data"
    if not data.exists():
        make_colours(data)
        make_tuning_bundle(folder)
    return open_run(Bundle.open(folder / "clip"), make_spec(data, **options))


def kill_tuning(folder: Path, options: Sequence[object]) -> None:
    """Kill `fozo tune` of `clip` in a folder when its progress is saved for the first time.

    Its head and its results file are called `killed`.
    """
    progress = folder / "killed.progress.npz"
    command = fozo_command("tune", folder / "clip", *options, "--data", folder / "data", "--as", "killed")
    with start_process([*command, "--out", str(folder / "killed.json")]) as process:
        while not progress.exists() and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
