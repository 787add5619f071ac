"""Functions that all measurements share: the machine, the time, turns, and processes of their own."""

from __future__ import annotations

import contextlib
import datetime
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import fozo
from fozo.engine.runtime.cpu import count_cpus, read_cpu_features


def describe_machine() -> dict[str, Any]:
    """Return the processor and the versions of what computes, without importing it."""
    versions = {"fozo": fozo.__version__, **{name: version(name) for name in ("torch", "timm")}}
    return {"machine": {"cpu": asdict(read_cpu_features()), "cpus": count_cpus()}, "versions": versions}


def now() -> str:
    """Return the time, UTC."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def take_turns(arms: dict[str, Callable[[], object]], samples: int) -> dict[str, float]:
    """Return the median seconds of each arm; the first round is not counted."""
    seconds: dict[str, list[float]] = {label: [] for label in arms}
    for _ in range(samples + 1):
        for label, run in arms.items():
            begin = time.perf_counter()
            run()
            seconds[label].append(time.perf_counter() - begin)
    return {label: statistics.median(values[1:]) for label, values in seconds.items()}


def run_alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a function returns in a new process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


@contextlib.contextmanager
def prepare_alone(
    prepare: Callable[..., Callable[[], object]], *arguments: Any
) -> Iterator[Callable[[], float]]:
    """Yield a function that runs what `prepare` returns, in a process of its own, and returns the seconds.

    Libraries keep threads waiting for more work after a call has returned. In one process, those of one arm
    would take time from the next.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        pool.apply(_prepare, (prepare, *arguments))
        yield lambda: float(pool.apply(_time_prepared))


_prepared: list[Callable[[], object]] = []


def _prepare(prepare: Callable[..., Callable[[], object]], *arguments: Any) -> None:
    _prepared[:] = [prepare(*arguments)]


def _time_prepared() -> float:
    begin = time.perf_counter()
    _prepared[0]()
    return time.perf_counter() - begin
