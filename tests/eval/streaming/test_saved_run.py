"""What a run that saves itself reports, and what it leaves behind when it is interrupted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fozo.engine.errors import InputError
from fozo.eval.results import partial_results
from fozo.eval.results.outcome import DomainResult
from fozo.eval.streaming.saved_run import Start, run_and_save, start_run


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
