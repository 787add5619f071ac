"""What a run that saves itself reports, and what it leaves behind when it is interrupted."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fozo.engine.errors import InputError, OutputError
from fozo.eval.results import partial_results
from fozo.eval.results.outcome import DomainResult
from fozo.eval.streaming.saved_run import Start, claim_results, run_and_save, start_run
from report_doubles import domain, results_of, run_of


class StandIn:
    """An experiment of two domains with two batches each, which stops after a number of batches."""

    def __init__(self, batches: int = 4) -> None:
        self.batches, self.processed_images, self.key_sha256 = batches, 0, "key"
        self.runs = [SimpleNamespace(seed=7, domains=[])]
        self.results = SimpleNamespace(save=self.save)

    def run(self) -> Iterator[int]:
        for batch in range(4):
            if batch == self.batches:
                raise KeyboardInterrupt
            if batch % 2 == 0:
                self.runs[0].domains.append(DomainResult("ab"[batch // 2], {}))
            self.runs[0].domains[-1].complete = batch % 2 == 1
            self.processed_images += 5
            yield 5

    def save(self, path: Path) -> None:
        path.write_text(json.dumps([domain.name for domain in self.runs[0].domains]))

    def save_progress(self, path: Path) -> None:
        path.write_text(str(self.processed_images))

    def resume(self, path: Path) -> None:
        self.processed_images = int(path.read_text())


def run(stand_in: Any, out: Path, save_every: float = 1e9) -> list[Any]:
    """Return the calls of the three functions in order."""
    calls: list[Any] = []
    run_and_save(
        stand_in,
        out,
        save_every=save_every,
        on_images=calls.append,
        on_domain=lambda seed, domain: calls.append((seed, domain.name, domain.complete)),
        on_interruption=lambda: calls.append("interrupted"),
    )
    return calls


def test_every_domain_is_reported_once(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    partial_results.get_path(out).write_text("5")
    assert run(StandIn(), out) == [0, 5, 5, (7, "a", True), 5, 5, (7, "b", True)]
    assert json.loads(out.read_text()) == ["a", "b"]
    assert not partial_results.get_path(out).exists()


@pytest.mark.parametrize(("batches", "names"), [(1, ["a"]), (2, ["a"]), (3, ["a", "b"])])
def test_an_interruption_saves_everything(tmp_path: Path, batches: int, names: list[str]) -> None:
    out, calls = tmp_path / "out.json", []
    with pytest.raises(KeyboardInterrupt):
        run_and_save(
            StandIn(batches),  # type: ignore[arg-type]
            out,
            save_every=1e9,
            on_domain=lambda seed, domain: calls.append(domain.name),
            on_interruption=lambda: calls.append("interrupted"),
        )
    assert calls == [*names, "interrupted"]
    assert json.loads(out.read_text()) == names
    assert partial_results.get_path(out).read_text() == str(5 * batches)


def test_nothing_is_saved_before_the_first_batch(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(StandIn(0), tmp_path / "out.json")
    assert list(tmp_path.iterdir()) == []


def test_where_a_run_starts(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    progress = partial_results.get_path(out)
    stand_in: Any = StandIn()
    assert start_run(stand_in, out, resume=False, overwrite=False) is Start.BEGINNING
    assert start_run(stand_in, out, resume=True, overwrite=False) is Start.NOTHING_SAVED
    progress.write_text("15")
    with pytest.raises(InputError, match="--overwrite"):
        start_run(stand_in, out, resume=False, overwrite=False)
    assert start_run(stand_in, out, resume=True, overwrite=False) is Start.CONTINUED
    assert stand_in.processed_images == 15
    assert start_run(stand_in, out, resume=False, overwrite=True) is Start.BEGINNING
    assert not progress.exists()


def test_results_of_this_run_without_their_progress_are_replaced(tmp_path: Path) -> None:
    """Runs of earlier versions left these when they were killed."""
    out, stand_in = tmp_path / "out.json", StandIn()
    results = results_of([run_of([domain("fog", 5, 6, complete=False)])])
    results.key_sha256 = "key"
    results.save(out)
    assert start_run(stand_in, out, resume=True, overwrite=False) is Start.NOTHING_SAVED  # type: ignore[arg-type]
    results.key_sha256 = "another"
    results.save(out)
    with pytest.raises(InputError, match=r"is not of this run, and .*--out.*--overwrite"):
        start_run(stand_in, out, resume=True, overwrite=False)  # type: ignore[arg-type]


def test_progress_is_saved_before_results_so_that_a_kill_between_them_loses_nothing(tmp_path: Path) -> None:
    stand_in, calls = StandIn(), []
    stand_in.results.save = lambda path: calls.append("results")
    stand_in.save_progress = lambda path: calls.append("progress")  # type: ignore[method-assign]
    run(stand_in, tmp_path / "out.json")
    assert calls == ["progress", "results", "progress", "results", "results"]


def test_existing_results_are_not_replaced_without_a_word(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    out.write_text("precious")
    with pytest.raises(InputError, match=r"out\.json exists, .*--out.*--overwrite"):
        start_run(StandIn(), out, resume=False, overwrite=False)  # type: ignore[arg-type]
    assert out.read_text() == "precious"
    assert start_run(StandIn(), out, resume=False, overwrite=True) is Start.BEGINNING  # type: ignore[arg-type]


def test_two_runs_do_not_share_a_results_file(tmp_path: Path) -> None:
    out, link = tmp_path / "out.json", tmp_path / "link.json"
    link.symlink_to(out)
    for name in (".out.json.0123abcd.tmp", ".out.progress.npz.0123abcd.tmp", ".out.json.notes.tmp"):
        (tmp_path / name).touch()  # of a killed run, the first two
    with claim_results(out):
        for path in (out, link):
            with (
                pytest.raises(OutputError, match=r"another process is writing .*\.json; wait"),
                claim_results(path),
            ):
                pass
        with claim_results(tmp_path / "other.json"):
            pass
    with claim_results(out):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.json.notes.tmp", "link.json"]


def test_a_killed_run_keeps_no_results_file(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    child = os.fork()
    if not child:
        with claim_results(out):
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert (tmp_path / ".out.json.lock").exists()
    with claim_results(out):
        pass
    assert list(tmp_path.iterdir()) == []
