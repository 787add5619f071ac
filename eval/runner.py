"""Streams domains through several methods at once, batch by batch, so that they are compared side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..data.loader import load_batches
from ..engine.adapter import Adapter
from .domains import Domain
from .memory import peak_bytes, reset_peak
from .metrics import Tally
from .protocol import Protocol, shuffled


@dataclass
class MethodResult:
    """What one method did on one domain.

    Attributes:
        tally: counts of right and wrong predictions.
        batches: batches processed.
        forwards: forwards over a batch, summed.
        seconds: wall time spent in the method's steps; loading images is not in it.
        peak_bytes: largest resident memory of the process during its steps.
        guarded: batches on which the guard stepped in.
    """

    tally: Tally = field(default_factory=Tally)
    batches: int = 0
    forwards: int = 0
    seconds: float = 0.0
    peak_bytes: int = 0
    guarded: int = 0

    @property
    def images_per_second(self) -> float:
        """Images per second of step time."""
        return self.tally.images / self.seconds if self.seconds else 0.0


@dataclass
class DomainResult:
    """All methods on one domain.

    Attributes:
        domain: which one.
        methods: by label, in the order given.
        complete: every image of the domain was seen.
        seconds: wall time of the whole domain, loading included.
    """

    domain: Domain
    methods: dict[str, MethodResult]
    complete: bool = False
    seconds: float = 0.0


def run(
    domains: Sequence[Domain],
    adapters: Mapping[str, Adapter],
    protocol: Protocol,
    *,
    columns: NDArray[np.int64] | None = None,
    on_batch: Callable[[int], None] = lambda images: None,
) -> Iterator[DomainResult]:
    """Yields the result of each domain twice: when it begins (it then fills up), and when it is complete.

    Every batch is loaded once and given to each method in turn; a method sees the stream as if it were
    alone. Interrupting the iteration leaves the result of the running domain as far as it came.

    Args:
        domains: in the order of the stream.
        adapters: one per label, all with their own state.
        protocol: order, batch size and setting.
        columns: for each label of the data, its column in the logits; None if they are the same.
        on_batch: called after each batch with its number of images.
    """
    for domain in domains:
        if protocol.setting == "reset":
            for adapter in adapters.values():
                adapter.reset()
        result = DomainResult(domain, {label: MethodResult() for label in adapters})
        yield result
        begin = time.perf_counter()
        for index, (images, labels) in enumerate(_batches(domain, protocol)):
            targets = labels if columns is None else columns[labels]
            for label in _rotated(list(adapters), index):
                _step(adapters[label], images, targets, result.methods[label])
            result.seconds = time.perf_counter() - begin
            on_batch(len(images))
        result.complete = True
        yield result


def _rotated(labels: list[str], index: int) -> list[str]:
    """Each method is first in its turn: the threads that load ahead disturb whichever runs first."""
    start = index % len(labels)
    return labels[start:] + labels[:start]


def _batches(domain: Domain, protocol: Protocol) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    order = shuffled(domain, protocol.seed)
    labels = domain.labels[order]
    with closing(load_batches(domain.load, order, protocol.batch_size)) as batches:
        for index, images in enumerate(batches):
            start = index * protocol.batch_size
            yield images, labels[start : start + len(images)]


def _step(
    adapter: Adapter, images: NDArray[np.uint8], labels: NDArray[np.int64], result: MethodResult
) -> None:
    reset_peak()
    begin = time.perf_counter()
    prediction = adapter.step(images)
    result.seconds += time.perf_counter() - begin
    result.peak_bytes = max(result.peak_bytes, peak_bytes())
    result.batches += 1
    result.forwards += prediction.forwards
    result.guarded += prediction.guarded
    result.tally.add(prediction.logits, labels)
