"""Measuring the arrangements of a network to find the fastest one on this machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import InputError
from ..model import ImageArray
from .arrangement import Arrangement
from .cpu import count_cpus
from .network import Network

MICRO_BATCHES = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class Measured:
    """An arrangement and its speed.

    Attributes:
        arrangement: what was measured.
        seconds: median time per image of one forward.
    """

    arrangement: Arrangement
    seconds: float


def list_arrangements() -> list[Arrangement]:
    """Return the arrangements that `tune` compares: 1 worker and one per processor, by all micro-batches."""
    return [Arrangement(w, size) for w in sorted({1, count_cpus()}) for size in MICRO_BATCHES]


def tune(
    network: Network,
    images: ImageArray,
    *,
    rounds: int = 3,
    on_step: Callable[[int], None] = lambda images: None,
) -> list[Measured]:
    """Measure all arrangements of one network, in turn, so that a busy moment slows all of them.

    Args:
        network: opened with as many workers as there are processors; its session serves all arrangements.
        images: uint8 `[N, H, W, 3]`, a batch as it will come later: what suits 64 images need not suit one.
        rounds: how often each is measured, at least 1.
        on_step: called after each measurement with its number of images; there are
            `rounds * len(list_arrangements())` of them.

    Returns:
        One record per arrangement, the fastest first.

    Raises:
        InputError: images of another type or shape, or no rounds.
    """
    if rounds < 1:
        raise InputError(f"rounds must be at least 1, found {rounds}")
    times: dict[Arrangement, list[float]] = {arrangement: [] for arrangement in list_arrangements()}
    for number in range(rounds):
        for arrangement, seconds in times.items():
            workers, micro_batch = arrangement.workers, arrangement.micro_batch
            with network.rearrange(workers, micro_batch) as view:
                if number == 0:  # memory is allocated once per size
                    view(images[: workers * micro_batch])
                start = time.perf_counter()
                view(images)
                seconds.append((time.perf_counter() - start) / len(images))
            on_step(len(images))
    measured = [Measured(arrangement, statistics.median(seconds)) for arrangement, seconds in times.items()]
    return sorted(measured, key=lambda measurement: measurement.seconds)
