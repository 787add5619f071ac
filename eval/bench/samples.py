"""Samples of a benchmark, each measured by a process of its own."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from ...engine.bundle.bundle import Bundle
from ...engine.errors import FozoError
from ..processes.children import child_environment
from .backends import Cell

WORKER = "fozo.eval.bench.worker"  # the program that takes one sample


class BenchError(FozoError):
    """A failed measurement; other cells are not affected."""


@dataclass(frozen=True)
class Sample:
    """The measurement of one process.

    Attributes:
        seconds: median time of a step.
        steps: number of timed steps, after one that is not timed.
        micro_batch: images per forward; tuning may have changed it.
        peak_mb: largest resident memory of the process, in 10⁶ bytes.
        load_seconds: time from the start of the process until it could take images.
        first_answer_seconds: time from the start of the process until its first answer.
    """

    seconds: float
    steps: int
    micro_batch: int
    peak_mb: float
    load_seconds: float
    first_answer_seconds: float


@dataclass
class Measurement:
    """The samples of a cell, one per round, and the reason if it failed."""

    cell: Cell
    samples: list[Sample] = field(default_factory=list)
    failure: str | None = None

    def median(self, name: str) -> float | None:
        """Return the median over rounds of an attribute of the samples; None without samples."""
        return statistics.median(getattr(s, name) for s in self.samples) if self.samples else None

    @property
    def images_per_second(self) -> float | None:
        """Images per second at the median time of a step."""
        seconds = self.median("seconds")
        return self.cell.batch_size / seconds if seconds else None


def time_ratio(samples: Sequence[Sample], base: Sequence[Sample]) -> float | None:
    """Return the median over rounds of the time divided by that of the base; None without a common round."""
    ratios = [sample.seconds / other.seconds for sample, other in zip(samples, base, strict=False)]
    return statistics.median(ratios) if ratios else None


def take_sample(bundle: Bundle, cell: Cell, min_seconds: float) -> Sample:
    """Run a process that measures a cell.

    Raises:
        BenchError: the process failed; the message has the last line of its errors.
    """
    request = {
        "bundle": str(bundle.path),
        "head": bundle.selected_head,
        **asdict(cell.backend),
        "method": cell.method,
        "batch_size": cell.batch_size,
        "threads": cell.threads,
        "min_seconds": min_seconds,
        "started": time.perf_counter(),
    }
    command = [sys.executable, "-m", WORKER, json.dumps(request)]
    environment = child_environment(cell.threads)
    completed = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    try:
        if completed.returncode == 0:
            return Sample(**json.loads(completed.stdout.splitlines()[-1]))
        message = (completed.stderr.strip().splitlines() or ["it printed nothing"])[-1]
    except (ValueError, TypeError, IndexError) as error:
        message = f"its answer cannot be read ({error})"
    raise BenchError(f"the measuring process ended with code {completed.returncode}: {message}")
