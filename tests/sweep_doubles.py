"""Helpers for the tests of sweeps: a small grid, and the processes that compute it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fozo.eval.results.outcome import MethodResult
from fozo.eval.streaming.spec import EvaluationSpec
from fozo.eval.sweep.cell import Cell, Job
from fozo.eval.sweep.folder import Sweep
from fozo.eval.sweep.local import run_locally
from fozo.eval.sweep.plan import plan

OPTIONS: dict[str, Any] = {
    "precisions": ("fp32",),
    "dataset": "imagenet-c",
    "data": None,
    "clean": None,
    "labels": None,
    "generate_from": None,
    "frost_textures": None,
    "corruptions": ("gaussian_noise", "contrast"),
    "severities": (3,),
    "subset": "all",
    "subset_list": None,
    "classes": "auto",
    "batch_size": 8,
    "seed": 7,
    "seeds": 1,
    "provider": "cpu",
}
CELL = Cell(
    bundle="b" * 64,
    model="a model/ü",
    precision="fp32",
    provider="cpu",
    label="calm=fozo:rate=0.1",
    method="fozo",
    options={"rate": 0.1, "shift": "origin"},
    dataset="imagenet-c",
    domain="fog",
    severity=5,
    seed=1,
    subset="all",
    images=10,
    images_sha256="c" * 64,
    classes="auto",
    batch_size=4,
    fozo="1.0",
)
needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes in /proc")


def plan_named(bundles: Sequence[Path], methods: Sequence[str], **options: Any) -> list[Job]:
    """Plan a sweep by the options of the command line."""
    precisions = options.pop("precisions")
    return plan(EvaluationSpec.from_options(bundles[0], list(methods), **options), bundles, precisions)


def counts(result: MethodResult) -> tuple[Any, ...]:
    """Return all counts, which must not depend to the bit on how the work was divided."""
    tally = result.tally
    bins = (tally.bin_images.tolist(), tally.bin_confidence.tolist(), tally.bin_correct.tolist())
    costs = (result.batches, result.forwards, result.guarded)
    return tally.images, tally.top1, tally.top5, tally.nll, *bins, *costs, result.right.array().tolist()


def run_sweep(folder: Path, jobs: Sequence[Job], **options: Any) -> Sweep:
    """Compute all cells of a grid in a folder."""
    sweep = Sweep.open(folder, jobs)
    images = list(sweep.run(partial(run_locally, **{"processes": 2, **options}), print))
    assert sum(images) == sum(job.cell.images for job in jobs)
    return sweep


def modification_times(folder: Path) -> dict[str, int]:
    """Return the modification time in nanoseconds of each cell's file by name."""
    return {path.name: path.stat().st_mtime_ns for path in (folder / "cells").iterdir()}


def child_processes(parent: int) -> set[int]:
    """Return the running processes that `parent` has started."""
    pids = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent_of_process, *_ = path.read_text().rpartition(") ")[2].split()
            if int(parent_of_process) == parent and state != "Z":
                pids.add(int(path.parent.name))
    return pids


def worker_processes() -> set[int]:
    """Return the processes of this one that compute cells."""

    def is_worker(pid: int) -> bool:
        with contextlib.suppress(OSError):
            return "fozo.eval.sweep.cell_worker" in Path(f"/proc/{pid}/cmdline").read_text()
        return False

    return {pid for pid in child_processes(os.getpid()) if is_worker(pid)}


def has_ended(pids: set[int], seconds: float) -> bool:
    """Return whether all processes end within some seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not any(Path(f"/proc/{pid}").exists() for pid in pids):
            return True
        time.sleep(0.05)
    return False
