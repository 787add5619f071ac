"""How fast a bundle runs on this machine: contestants × methods × batch sizes × threads.

Every sample is taken in a process of its own (bench_worker.py), one at a time. Rounds visit all cells in
turn, so that a disturbance of the machine meets all of them; ratios are taken within a round, and what is
reported are medians over the rounds.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import Any

from ..._version import __version__
from ...engine.bundle.bundle import Bundle
from ...engine.errors import FozoError, InputError
from ...engine.registry import parse_method, parse_methods
from ...engine.runtime.cpu import available_cpus, cpu_features
from ..processes.children import child_environment
from .worker import TORCH

SCHEMA = 1
BASELINE = "no_adapt"
TORCH_METHODS = ("no_adapt", "fozo")
TORCH_PRECISIONS = ("fp32", "bf16")
TORCH_PARTS = (None, 8)
_PACKAGES = ("onnxruntime", "onnxruntime-openvino", "numpy", "torch", "timm")
# Of the table: heading, width, format; the values are those of `_row`.
_COLUMNS = (
    ("img/s", 10, ".1f"),
    ("ms/step", 11, ".2f"),
    ("micro", 7, ".0f"),
    (f"/ {BASELINE}", 12, ".2f"),
    ("/ first", 9, ".2f"),
    ("peak MB", 9, ".0f"),
    ("load s", 8, ".2f"),
    ("answer s", 10, ".2f"),
)


class BenchError(FozoError):
    """Something could not be measured; other cells are not touched by it."""


@dataclass(frozen=True)
class Contestant:
    """What computes the forwards.

    Attributes:
        precision: a graph of the bundle, or what PyTorch computes in.
        provider: `cpu` or `openvino` of ONNX Runtime, or `torch`.
        part: images at a time in PyTorch; None is the whole batch. ONNX Runtime has its own micro-batches.
    """

    precision: str
    provider: str = "cpu"
    part: int | None = None

    @property
    def label(self) -> str:
        """The name in the table."""
        if self.provider == TORCH:
            return f"torch {self.precision}" + (f", {self.part} at a time" if self.part else "")
        return self.precision if self.provider == "cpu" else f"{self.precision} {self.provider}"

    def takes(self, method: str, batch_size: int) -> bool:
        """Whether it has this method, and whether its parts differ from the whole batch."""
        if self.provider != TORCH:
            return True
        return method in TORCH_METHODS and (self.part is None or self.part < batch_size)


@dataclass(frozen=True)
class Cell:
    """One thing to measure; its method is written as for `parse_method`."""

    contestant: Contestant
    method: str
    batch_size: int
    threads: int

    @property
    def label(self) -> str:
        """The method's name in the table."""
        return parse_method(self.method)[0]

    def describe(self) -> str:
        """The cell in words, for messages."""
        threads = _threads_in_words(self.threads)
        return f"{self.contestant.label} {self.label}, batch {self.batch_size}, {threads}"


@dataclass(frozen=True)
class Sample:
    """What one process measured.

    Attributes:
        seconds: of a step, the median of its steps.
        steps: how many were timed, after one that was not.
        micro_batch: images at a time; tuning may have changed it.
        peak_mb: largest resident memory of the process, in 10⁶ bytes.
        load_seconds: from the beginning of the process until it could take images.
        first_answer_seconds: from the beginning of the process until its first answer.
    """

    seconds: float
    steps: int
    micro_batch: int
    peak_mb: float
    load_seconds: float
    first_answer_seconds: float


@dataclass
class Measurement:
    """The samples of a cell, one per round, and why there are no more if it failed."""

    cell: Cell
    samples: list[Sample] = field(default_factory=list)
    failure: str | None = None

    def median(self, name: str) -> float | None:
        """The median over rounds of an attribute of the samples; None without samples."""
        return statistics.median(getattr(s, name) for s in self.samples) if self.samples else None

    @property
    def images_per_second(self) -> float | None:
        """Images per second at the median time of a step."""
        seconds = self.median("seconds")
        return self.cell.batch_size / seconds if seconds else None


def matrix(
    contestants: Sequence[Contestant],
    methods: Sequence[str],
    batch_sizes: Sequence[int],
    threads: Sequence[int],
) -> list[Cell]:
    """All cells, in the order of the table. What is compared with each other runs one after the other."""
    return [
        Cell(contestant, method, batch_size, count)
        for batch_size in batch_sizes
        for count in threads
        for contestant in contestants
        for method in methods
        if contestant.takes(method, batch_size)
    ]


def time_ratio(samples: Sequence[Sample], base: Sequence[Sample]) -> float | None:
    """The median over rounds of time by time of the base in the same round; None without a common round."""
    ratios = [sample.seconds / other.seconds for sample, other in zip(samples, base, strict=False)]
    return statistics.median(ratios) if ratios else None


@dataclass
class Benchmark:
    """A matrix of cells over a bundle; it runs, and it tells what it found.

    Attributes:
        bundle: what is measured.
        contestants: in the order of the table; others are compared with the first.
        measurements: one per cell.
        rounds: samples per cell.
        min_seconds: how long the steps of a sample take at least.
        load: average number of running processes on the machine, before and after; None where unknown.
    """

    bundle: Bundle
    contestants: list[Contestant]
    measurements: list[Measurement]
    rounds: int
    min_seconds: float
    load: list[float | None] = field(default_factory=lambda: [None, None])

    @property
    def samples(self) -> int:
        """How many samples there will be."""
        return self.rounds * len(self.measurements)

    @property
    def started(self) -> bool:
        """Whether anything was measured or has failed."""
        return any(m.samples or m.failure for m in self.measurements)

    @property
    def complete(self) -> bool:
        """Whether every cell has all its samples or has failed."""
        return all(m.failure or len(m.samples) == self.rounds for m in self.measurements)

    @property
    def failures(self) -> list[str]:
        """One line for each cell that failed."""
        return [f"{m.cell.describe()}: {m.failure}" for m in self.measurements if m.failure]

    def run(
        self,
        on_sample: Callable[[int], None] = lambda count: None,
        sample: Callable[[Bundle, Cell, float], Sample] | None = None,
    ) -> None:
        """Measures all cells, round by round; a cell that fails is left out of later rounds.

        Args:
            on_sample: called after each sample with 1.
            sample: what takes one; default: `take_sample`.
        """
        take = sample or take_sample
        self.load[0] = _load_average()
        try:
            for _ in range(self.rounds):
                for measurement in self.measurements:
                    self._visit(measurement, take)
                    on_sample(1)
        finally:
            self.load[1] = _load_average()

    def _visit(self, measurement: Measurement, take: Callable[[Bundle, Cell, float], Sample]) -> None:
        if measurement.failure:
            return
        try:
            measurement.samples.append(take(self.bundle, measurement.cell, self.min_seconds))
        except BenchError as error:
            measurement.failure = str(error)

    def ratios(self, measurement: Measurement) -> tuple[float | None, float | None]:
        """Time by that of no adaptation, and by that of the same method of the first contestant."""
        cell, samples = measurement.cell, {m.cell: m.samples for m in self.measurements}
        bases = replace(cell, method=BASELINE), replace(cell, contestant=self.contestants[0])
        to_baseline, to_first = (time_ratio(measurement.samples, samples.get(base, ())) for base in bases)
        return to_baseline, to_first

    def document(self) -> dict[str, Any]:
        """Everything as a JSON document: bundle, machine, versions, and cells with medians and all samples.

        Of a cell: `seconds` of a step, `time_by_no_adapt` and `time_by_first` (medians of the ratios within
        the rounds), `failure`, and what `Contestant` and `Sample` describe. What is not known is null.
        """
        return {
            "schema": SCHEMA,
            "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "complete": self.complete,
            "rounds": self.rounds,
            "min_seconds": self.min_seconds,
            "bundle": self._bundle(),
            "machine": {
                "system": platform.system(),
                "cpu": asdict(cpu_features()),
                "cpus": available_cpus(),
                "load_before": self.load[0],
                "load_after": self.load[1],
            },
            "versions": _versions(),
            "cells": [self._cell(measurement) for measurement in self.measurements],
        }

    def to_json(self) -> str:
        """The document as it is written."""
        return json.dumps(self.document(), indent=1, ensure_ascii=False) + "\n"

    def table(self) -> str:
        """What was measured, for people: a block of rows per batch size and number of threads."""
        headings = "".join(name.rjust(width) for name, width, _ in _COLUMNS)
        lines = self._heading()
        for (batch_size, threads), group in groupby(self.measurements, _group):
            title = f"batch {batch_size}, {_threads_in_words(threads)}"
            lines += ["", title.ljust(sum(self._widths)) + headings]
            lines += [self._row(measurement) for measurement in group]
        return "\n".join(lines)

    @property
    def _widths(self) -> tuple[int, int]:
        """Of the columns for contestants and methods."""
        contestants = (len(m.cell.contestant.label) for m in self.measurements)
        methods = (len(m.cell.label) for m in self.measurements)
        return 2 + max(16, *contestants), 2 + max(8, *methods)

    def _heading(self) -> list[str]:
        cpu, (before, after), sizes = cpu_features(), self.load, self._bundle()["graphs"]
        cpus, first = available_cpus(), self.contestants[0].label
        busy = "; the machine was busy before, do not trust these times" if (before or 0) > cpus / 2 else ""
        return [
            f"{self.bundle.manifest.model}: "
            + ", ".join(f"{name} {entry['mb']:.1f} MB" for name, entry in sizes.items()),
            f"{cpu.model}, {cpu.architecture}, {cpus} usable processors; "
            f"for int8: {' '.join(cpu.features) or 'nothing known'}",
            ", ".join(f"{name} {number}" for name, number in _versions().items()),
            f"load average {_number(before, '.2f')} before, {_number(after, '.2f')} after{busy}",
            f"medians of {self.rounds} rounds; a sample: a new process, {self.min_seconds:g} s of steps",
            f"/ {BASELINE}, / first: time by that of {BASELINE}, and by that of {first}, within a round",
        ]

    def _row(self, measurement: Measurement) -> str:
        m, (wide, narrow) = measurement, self._widths
        label = m.cell.contestant.label.ljust(wide) + m.cell.label.ljust(narrow)
        if m.failure:
            return f"{label}  failed: {m.failure}"
        seconds = m.median("seconds")
        values = (
            m.images_per_second,
            None if seconds is None else 1e3 * seconds,
            m.median("micro_batch"),
            *self.ratios(m),
            m.median("peak_mb"),
            m.median("load_seconds"),
            m.median("first_answer_seconds"),
        )
        columns = zip(values, _COLUMNS, strict=True)
        return label + "".join(_number(value, kind).rjust(width) for value, (_, width, kind) in columns)

    def _bundle(self) -> dict[str, Any]:
        m = self.bundle.manifest
        used = {c.precision for c in self.contestants if c.provider != TORCH}
        return {
            "path": str(self.bundle.path),
            "sha256": self.bundle.sha256,
            "model": m.model,
            "graphs": {
                name: {"file": entry.file, "mb": m.files[entry.file].bytes / 1e6}
                for name, entry in m.graphs.items()
                if name in used
            },
        }

    def _cell(self, measurement: Measurement) -> dict[str, Any]:
        m, cell = measurement, measurement.cell
        to_baseline, to_first = self.ratios(m)
        return {
            "contestant": cell.contestant.label,
            **asdict(cell.contestant),
            "method": cell.method,
            "batch_size": cell.batch_size,
            "threads": cell.threads,
            "images_per_second": m.images_per_second,
            **{name: m.median(name) for name in Sample.__dataclass_fields__ if name != "steps"},
            f"time_by_{BASELINE}": to_baseline,
            "time_by_first": to_first,
            "failure": m.failure,
            "samples": [asdict(sample) for sample in m.samples],
        }


def prepare(
    bundle: Path,
    *,
    methods: Sequence[str],
    precisions: Sequence[str],
    batch_sizes: Sequence[int],
    threads: Sequence[int],
    providers: Sequence[str],
    with_torch: bool,
    rounds: int,
    min_seconds: float,
) -> Benchmark:
    """A benchmark from what a person typed; what cannot work is refused before anything is measured.

    Args:
        bundle: path of the bundle.
        methods: methods, each as for `parse_method`.
        precisions: graphs of the bundle; none means all of them.
        batch_sizes: images per step.
        threads: numbers of threads; none means one, and all processors.
        providers: `cpu`, `openvino`.
        with_torch: whether eager PyTorch takes part.
        rounds: samples per cell.
        min_seconds: how long the steps of a sample take at least.

    Raises:
        BundleError: the bundle cannot be used, or has no such graph.
        InputError: there is no such method, or PyTorch is asked for and not installed.
    """
    opened = Bundle.open(bundle)
    chosen = _distinct(precisions) or list(opened.manifest.graphs)
    for precision in chosen:
        opened.graph(precision)
    parse_methods(_distinct(methods))
    contestants = [Contestant(name, provider) for provider in _distinct(providers) for name in chosen]
    if with_torch:
        contestants += _torch_contestants()
    counts = _distinct(threads) or _distinct((1, available_cpus()))
    cells = matrix(contestants, _distinct(methods), _distinct(batch_sizes), counts)
    return Benchmark(opened, contestants, [Measurement(cell) for cell in cells], rounds, min_seconds)


def take_sample(bundle: Bundle, cell: Cell, min_seconds: float) -> Sample:
    """Runs a process that measures a cell.

    Raises:
        BenchError: it failed; the message has the last line of what it said.
    """
    request = {
        "bundle": str(bundle.path),
        **asdict(cell.contestant),
        "method": cell.method,
        "batch_size": cell.batch_size,
        "threads": cell.threads,
        "min_seconds": min_seconds,
        "started": time.perf_counter(),
    }
    command = [sys.executable, "-m", "fozo.eval.bench.worker", json.dumps(request)]
    environment = child_environment(cell.threads)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    try:
        if done.returncode == 0:
            return Sample(**json.loads(done.stdout.splitlines()[-1]))
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
    except (ValueError, TypeError, IndexError) as error:
        said = f"its answer cannot be read ({error})"
    raise BenchError(f"the measuring process ended with code {done.returncode}: {said}")


def _torch_contestants() -> list[Contestant]:
    missing = [name for name in ("torch", "timm") if find_spec(name) is None]
    if missing:
        raise InputError(
            f"--torch compares with PyTorch models of timm, but {' and '.join(missing)} cannot be found; "
            'install both with: pip install "fozo[export]"'
        )
    return [Contestant(precision, TORCH, part) for precision in TORCH_PRECISIONS for part in TORCH_PARTS]


def _versions() -> dict[str, str]:
    """Of fozo, Python, and what is installed of the packages that compute."""
    found = {"fozo": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _load_average() -> float | None:
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):  # not on Windows
        return None


def _group(measurement: Measurement) -> tuple[int, int]:
    return measurement.cell.batch_size, measurement.cell.threads


def _distinct(values: Sequence[Any]) -> list[Any]:
    """Without what was given twice, in the order given."""
    return list(dict.fromkeys(values))


def _threads_in_words(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"


def _number(value: float | None, kind: str) -> str:
    return "–" if value is None else format(value, kind)
