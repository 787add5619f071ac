"""Speed of a bundle on this machine: backends × methods × batch sizes × threads.

Every sample is taken in a process of its own, one at a time. Rounds visit all cells in turn, so that a
disturbance of the machine affects all of them. Ratios are taken within a round, and medians over the rounds
are reported.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...engine.bundle.bundle import Bundle
from ...engine.registry import parse_methods
from ...engine.runtime.cpu import count_cpus
from .backends import Backend, Cell, list_cells, list_torch_backends
from .samples import BenchError, Measurement, Sample, take_sample, time_ratio

BASELINE = "no_adapt"


@dataclass
class Benchmark:
    """The cells to measure on a bundle, with their measurements.

    Attributes:
        bundle: the measured bundle.
        backends: in the order of the table; others are compared with the first.
        measurements: one per cell.
        samples_per_cell: number of samples to take of every cell.
        min_seconds: minimal total time of the steps of a sample.
        load: average number of running processes on the machine, before and after; None where unknown.
    """

    bundle: Bundle
    backends: list[Backend]
    measurements: list[Measurement]
    samples_per_cell: int
    min_seconds: float
    load: list[float | None] = field(default_factory=lambda: [None, None])

    @property
    def sample_count(self) -> int:
        """Number of samples of all cells together."""
        return self.samples_per_cell * len(self.measurements)

    @property
    def started(self) -> bool:
        """True if anything was measured or has failed."""
        return any(m.samples or m.failure for m in self.measurements)

    @property
    def complete(self) -> bool:
        """True if every cell has all its samples or has failed."""
        return all(m.failure or len(m.samples) == self.samples_per_cell for m in self.measurements)

    @property
    def failures(self) -> list[str]:
        """One line for every failed cell."""
        return [f"{m.cell.describe()}: {m.failure}" for m in self.measurements if m.failure]

    def run(
        self,
        on_sample: Callable[[int], None] = lambda count: None,
        sample: Callable[[Bundle, Cell, float], Sample] | None = None,
    ) -> None:
        """Measure all cells, round by round; skip a failed cell in later rounds.

        Args:
            on_sample: is called with 1 after every sample.
            sample: takes a sample; default: `take_sample`.
        """
        take = sample or take_sample
        self.load[0] = _load_average()
        try:
            for _ in range(self.samples_per_cell):
                for measurement in self.measurements:
                    self._measure(measurement, take)
                    on_sample(1)
        finally:
            self.load[1] = _load_average()

    def _measure(self, measurement: Measurement, take: Callable[[Bundle, Cell, float], Sample]) -> None:
        if measurement.failure:
            return
        try:
            measurement.samples.append(take(self.bundle, measurement.cell, self.min_seconds))
        except BenchError as error:
            measurement.failure = str(error)

    def ratios(self, measurement: Measurement) -> tuple[float | None, float | None]:
        """Return the time relative to no adaptation, and to the same method on the first backend."""
        cell, samples = measurement.cell, {m.cell: m.samples for m in self.measurements}
        bases = replace(cell, method=BASELINE), replace(cell, backend=self.backends[0])
        to_baseline, to_first = (time_ratio(measurement.samples, samples.get(base, ())) for base in bases)
        return to_baseline, to_first


def prepare(
    bundle: Path,
    *,
    head: str | None = None,
    methods: Sequence[str],
    precisions: Sequence[str],
    batch_sizes: Sequence[int],
    threads: Sequence[int],
    providers: Sequence[str],
    with_torch: bool,
    samples: int,
    min_seconds: float,
) -> Benchmark:
    """Return a benchmark after checking all arguments.

    Args:
        bundle: path of the bundle.
        head: name of the classes to use, where the bundle makes classes from texts; None: its own.
        methods: each as for `parse_method`.
        precisions: graphs of the bundle; empty means all of them.
        batch_sizes: images per step.
        threads: numbers of threads; empty means one, and all processors.
        providers: `cpu`, `openvino`.
        with_torch: also measure eager PyTorch.
        samples: number of samples to take of every cell.
        min_seconds: minimal total time of the steps of a sample.

    Raises:
        BundleError: the bundle cannot be used, or has no such graph or head.
        InputError: a method does not exist, or PyTorch is needed and not installed.
    """
    opened = Bundle.open(bundle, head)
    graphs = _distinct(precisions) or list(opened.manifest.graphs)
    for precision in graphs:
        opened.graph(precision)
    parse_methods(_distinct(methods))
    backends = [Backend(name, provider) for provider in _distinct(providers) for name in graphs]
    if with_torch:
        backends += list_torch_backends()
    counts = _distinct(threads) or _distinct((1, count_cpus()))
    cells = list_cells(backends, _distinct(methods), _distinct(batch_sizes), counts)
    return Benchmark(opened, backends, [Measurement(cell) for cell in cells], samples, min_seconds)


def _load_average() -> float | None:
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):  # not on Windows
        return None


def _distinct(values: Sequence[Any]) -> list[Any]:
    """Return the values without duplicates, in order."""
    return list(dict.fromkeys(values))
