"""Sweeps in processes of this machine, which die, fail and are closed."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from fozo.engine.errors import ComputeError, InputError
from fozo.eval.results.outcome import MethodResult
from fozo.eval.sweep.cell import Cell, Job
from fozo.eval.sweep.cell_worker import Request, answer
from fozo.eval.sweep.events import Event, Failed, Finished, Processed, Retried
from fozo.eval.sweep.folder import Sweep
from fozo.eval.sweep.local import default_processes, run_locally
from sweep_doubles import (
    counts,
    modification_times,
    needs_proc,
    run_sweep,
    worker_processes,
)


def test_threads_do_not_change_results(jobs: Callable[..., list[Job]], tmp_path: Path) -> None:
    planned = jobs(["fozo"])
    one, two = (
        run_sweep(tmp_path / "1", planned, threads=1),
        run_sweep(tmp_path / "2", planned, processes=1, threads=2),
    )
    for job in planned:
        assert two.finished[job.cell].engine["workers"] == 2
        assert counts(one.finished[job.cell].method_result) == counts(two.finished[job.cell].method_result)


def test_processes_share_the_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fozo.eval.sweep.local.count_cpus", lambda: 8)
    assert [default_processes(threads) for threads in (1, 2, 3, 8, 16)] == [8, 4, 2, 1, 1]


@needs_proc
def test_a_killed_process_loses_nothing(jobs: Callable[..., list[Job]], tmp_path: Path) -> None:
    planned = jobs(corruptions=("gaussian_noise", "contrast", "clean"), batch_size=2)
    assert len(planned) == 6
    calm = {job.cell: counts(result) for job, result in method_results(run_sweep(tmp_path / "calm", planned))}
    killed: set[int] = set()

    def disturbed(pending: Sequence[Job]) -> Iterator[Event]:
        with contextlib.closing(run_locally(pending, 2)) as events:
            for event in events:
                if isinstance(event, Processed) and not killed:
                    killed.add(min(worker_processes()))
                    os.kill(min(killed), signal.SIGKILL)
                happened.append(event)
                yield event

    happened: list[Event] = []
    sweep = Sweep.open(tmp_path / "disturbed", planned)
    images = list(sweep.run(disturbed, print))  # type: ignore[arg-type]
    assert sum(images) == 6 * 40
    again = [event for event in happened if isinstance(event, Retried)]
    assert [event.reason for event in again] == [
        "its process was ended by signal 9 (Killed), perhaps as memory ran out"
    ]
    finished = [event.cell for event in happened if isinstance(event, Finished)]
    assert sorted(finished, key=position_in(planned)) == [job.cell for job in planned]
    assert {cell: counts(results.method_result) for cell, results in sweep.finished.items()} == calm
    assert sorted(modification_times(tmp_path / "disturbed")) == sorted(
        f"{job.cell.name}.json" for job in planned
    )
    assert worker_processes() == set()


def method_results(sweep: Sweep) -> Iterator[tuple[Job, MethodResult]]:
    return ((job, sweep.finished[job.cell].method_result) for job in sweep.jobs)


def position_in(jobs: Sequence[Job]) -> Callable[[Cell], int]:
    return [job.cell for job in jobs].index


@needs_proc
def test_a_cell_that_always_dies_is_given_up(jobs: Callable[..., list[Job]]) -> None:
    planned = jobs(batch_size=1)
    doomed, armed = planned[0].cell, True
    happened: list[Event] = []
    for event in run_locally(planned, processes=1, retries=1):
        happened.append(event)
        if event.cell == doomed and isinstance(event, Retried):
            armed = True
        if event == Processed(doomed, 1) and armed:
            os.kill(min(worker_processes()), signal.SIGKILL)
            armed = False
    ends = {e.cell: e for e in happened if isinstance(e, (Finished, Failed))}
    assert [e.cell for e in happened if isinstance(e, Retried)] == [doomed]
    assert "signal 9" in getattr(ends.pop(doomed), "reason", "")
    assert [type(ends[job.cell]) for job in planned[1:]] == [Finished] * 3
    assert isinstance(happened[-1], Failed), "it is tried again last"


@needs_proc
def test_closing_ends_all_processes(jobs: Callable[..., list[Job]]) -> None:
    events = run_locally(jobs(batch_size=1), processes=2)
    while not isinstance(next(events), Processed):
        pass
    started = worker_processes()
    assert 1 <= len(started) <= 2
    before = time.monotonic()
    events.close()
    assert time.monotonic() - before < 5
    assert worker_processes() == set()


def test_what_a_process_says_last_is_the_reason(
    jobs: Callable[..., list[Job]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = tmp_path / "onnxruntime.py"
    package.write_text("raise RuntimeError('no such processor')")
    monkeypatch.syspath_prepend(str(tmp_path))
    events = list(run_locally(jobs(["no_adapt"], corruptions=("contrast",)), processes=1, retries=1))
    assert [type(event) for event in events] == [Retried, Failed]
    assert "its process ended with code 1: RuntimeError: no such processor" in getattr(
        events[-1], "reason", ""
    )


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (InputError("image 3 is damaged"), {"error": "image 3 is damaged", "again": False}),
        (ComputeError("no memory; use less"), {"error": "no memory; use less", "again": True}),
        (MemoryError(), {"error": "MemoryError", "again": True}),
    ],
)
def test_only_lack_of_memory_is_tried_again(
    jobs: Callable[..., list[Job]],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    expected: dict[str, Any],
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("fozo.eval.sweep.cell_worker.compute", fail)
    answers: list[Any] = []
    answer(Request(jobs()[0], 1), answers.append)
    assert answers == [expected]
