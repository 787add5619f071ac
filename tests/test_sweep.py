"""Sweeps on this machine: the grid, what a folder keeps, and processes that die, fail or are interrupted."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import fozo
import numpy as np
import pytest
from click.testing import CliRunner
from fozo.cli import cli
from fozo.engine.errors import ComputeError, InputError
from fozo.eval.experiment import prepare
from fozo.eval.metrics import Tally
from fozo.eval.outcome import DomainResult, MethodResult, Run, Trace
from fozo.eval.protocol import Protocol
from fozo.eval.sweep import table
from fozo.eval.sweep.cell import Cell, Job, compute
from fozo.eval.sweep.events import Again, Event, Failed, Finished, Seen
from fozo.eval.sweep.folder import Sweep
from fozo.eval.sweep.local import default_processes, run_locally
from fozo.eval.sweep.plan import plan
from fozo.eval.sweep.results import CellResults, read
from fozo.eval.sweep.worker import answer
from PIL import Image

COMMAND = [sys.executable, "-m", "fozo.cli", "sweep"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(str(fozo.__file__)).parent.parent)}
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
    options=(("rate", 0.1), ("shift", "origin")),
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


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory, random_images: Callable[..., Any]) -> Path:
    """40 clean images in 20 classes, which is what the small bundles predict."""
    return save_pictures(tmp_path_factory.mktemp("pictures"), random_images(40))


def save_pictures(folder: Path, images: Any) -> Path:
    for index, image in enumerate(images):
        path = folder / f"class{index % 20:02d}" / f"{index:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return folder


@pytest.fixture
def jobs(bundle_path: Path, pictures: Path) -> Callable[..., list[Job]]:
    """`jobs(methods=…, **options)`: a grid over generated corruptions of the pictures."""

    def make(methods: Sequence[str] = ("no_adapt", "fozo"), **options: Any) -> list[Job]:
        return plan([bundle_path], methods, **{**OPTIONS, "generate_from": pictures, **options})

    return make


def counts(part: MethodResult) -> tuple[Any, ...]:
    """All that must not depend on how the work was done: to the bit."""
    tally = part.tally
    bins = (tally.bin_images.tolist(), tally.bin_confidence.tolist(), tally.bin_correct.tolist())
    return tally.images, tally.top1, tally.top5, tally.nll, *bins, part.batches, part.forwards, part.guarded


def swept(folder: Path, jobs: Sequence[Job], **options: Any) -> Sweep:
    sweep = Sweep.open(folder, jobs)
    images = list(sweep.run(partial(run_locally, **{"processes": 2, **options}), print))
    assert sum(images) == sum(job.cell.images for job in jobs)
    return sweep


def times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (folder / "cells").iterdir()}


def children(parent: int) -> set[int]:
    """The processes that `parent` has started and that still live."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, of, *_ = path.read_text().rpartition(") ")[2].split()
            if int(of) == parent and state != "Z":
                found.add(int(path.parent.name))
    return found


def workers() -> set[int]:
    def is_worker(pid: int) -> bool:
        with contextlib.suppress(OSError):
            return "fozo.eval.sweep.worker" in Path(f"/proc/{pid}/cmdline").read_text()
        return False

    return {pid for pid in children(os.getpid()) if is_worker(pid)}


def gone(pids: set[int], seconds: float) -> bool:
    """Whether these processes come to an end within some seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not any(Path(f"/proc/{pid}").exists() for pid in pids):
            return True
        time.sleep(0.05)
    return False


# --- cells and grid ---


def test_a_key_is_the_hash_of_all_that_decides() -> None:
    content = {f.name: getattr(CELL, f.name) for f in fields(CELL)}
    content["options"] = {"rate": 0.1, "shift": "origin"}
    expected = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    assert CELL.key == expected
    assert CELL.name == f"a_model_-fp32-calm=fozo_rate=0.1-fog5-1-{expected[:12]}"
    assert Cell.from_json(json.loads(json.dumps(CELL.to_json()))) == CELL


@pytest.mark.parametrize("name", [f.name for f in fields(Cell)])
def test_anything_else_is_another_cell(name: str) -> None:
    others: dict[type, Any] = {str: "other", int: 99, tuple: (("rate", 0.2), ("shift", "origin"))}
    other = replace(CELL, **{name: others[type(getattr(CELL, name))]})
    assert other.key != CELL.key
    assert other.name != CELL.name


def test_a_long_name_is_cut_and_still_unique() -> None:
    long = replace(CELL, label="fozo:" + "rate=1," * 100)
    assert len(long.name) < 200
    assert long.name != replace(long, severity=1).name


def test_the_grid_is_the_product(
    int8_bundle_path: Path, bundle_paths: dict[int, Path], pictures: Path
) -> None:
    options = {
        **OPTIONS,
        "generate_from": pictures,
        "corruptions": ("fog", "clean"),
        "severities": (1, 4),
        "seeds": 2,
    }
    made = plan([int8_bundle_path], ["no_adapt", "x=shift"], **{**options, "precisions": ("fp32", "int8")})
    cells = [(c.seed, c.domain, c.severity, c.precision, c.label) for c in (job.cell for job in made)]
    domains = [("fog", 1), ("fog", 4), ("clean", None)]
    assert cells == [
        (seed, domain, severity, precision, label)
        for seed in (7, 8)
        for domain, severity in domains
        for precision in ("fp32", "int8")
        for label in ("no_adapt", "x")
    ]
    assert len({job.cell.key for job in made}) == len(made) == 24
    assert {job.cell.method for job in made} == {"no_adapt", "shift"}
    assert {job.cell.dataset for job in made} == {"generated corruptions (not the official ImageNet-C)"}

    both = plan([bundle_paths[64], bundle_paths[192]], ["no_adapt"], **options)
    assert [job.cell.model for job in both[:2]] == ["random-64-3-64", "random-192-2-192"]
    assert len(both) == 12


def test_a_subset_is_chosen_anew_for_each_seed(jobs: Callable[..., list[Job]]) -> None:
    first, second = jobs(["no_adapt"], corruptions=("fog",), seeds=2, subset="10")
    assert first.cell.images == second.cell.images == 10
    assert first.cell.images_sha256 != second.cell.images_sha256
    assert first.cell == jobs(["no_adapt"], corruptions=("fog", "clean"), subset="10")[0].cell


def test_a_plain_folder_is_one_domain_whatever_the_severities(bundle_path: Path, pictures: Path) -> None:
    options = {**OPTIONS, "dataset": "imagefolder", "data": pictures, "corruptions": None}
    (job,) = plan([bundle_path], ["no_adapt"], **{**options, "severities": (1, 2, 3)})
    assert (job.cell.domain, job.cell.severity, job.cell.images) == ("imagefolder", None, 40)
    assert compute(job, 1)["runs"][0]["domains"][0]["methods"]["no_adapt"]["images"] == 40


def test_clean_images_of_another_folder_are_a_domain_too(
    bundle_path: Path, pictures: Path, tmp_path: Path, random_images: Callable[..., Any]
) -> None:
    for severity in (1, 5):
        save_pictures(tmp_path / "fog" / str(severity), random_images(20, severity))
    options = {**OPTIONS, "data": tmp_path, "clean": pictures, "corruptions": ("fog",)}
    made = plan([bundle_path], ["no_adapt"], **{**options, "severities": (1, 5)})
    assert [(job.cell.domain, job.cell.severity, job.cell.images) for job in made] == [
        ("fog", 1, 20),
        ("fog", 5, 20),
        ("clean", None, 40),
    ]
    for job in made:
        (run,) = compute(job, 1)["runs"]
        assert [(domain["name"], domain["images"]) for domain in run["domains"]] == [
            (job.cell.domain, job.cell.images)
        ]


def test_a_bundle_given_twice_is_refused(bundle_path: Path, pictures: Path) -> None:
    with pytest.raises(InputError, match="2 cells of the sweep are there twice"):
        plan([bundle_path, bundle_path], ["no_adapt"], **{**OPTIONS, "generate_from": pictures})


def test_what_cannot_be_used_fails_before_the_work(jobs: Callable[..., list[Job]]) -> None:
    with pytest.raises(InputError, match="no method 'nonsense'"):
        jobs(["nonsense"])
    with pytest.raises(InputError, match="has only 40 images"):
        jobs(subset="41")
    with pytest.raises(fozo.FozoError, match="no int8 graph"):
        jobs(precisions=("fp32", "int8"))


def test_a_cell_whose_images_have_changed_is_not_computed(jobs: Callable[..., list[Job]]) -> None:
    job = jobs()[0]
    with pytest.raises(InputError, match="expected 40 images of gaussian_noise as they were"):
        compute(replace(job, cell=replace(job.cell, images_sha256="0" * 64)), 1)
    with pytest.raises(fozo.FozoError, match="has changed since the sweep began"):
        compute(replace(job, cell=replace(job.cell, bundle="0" * 64)), 1)


# --- running ---


def test_cells_are_what_one_run_of_all_gives(
    jobs: Callable[..., list[Job]], bundle_path: Path, pictures: Path, tmp_path: Path
) -> None:
    grid = {"corruptions": ("gaussian_noise", "clean"), "severities": (2, 5), "seeds": 2, "subset": "24"}
    made = jobs(**grid)
    sweep = swept(tmp_path, made)
    assert not sweep.failed
    assert not sweep.pending
    options = {**OPTIONS, "generate_from": pictures, **grid}
    del options["precisions"]
    whole = prepare(
        bundle_path,
        ["no_adapt", "fozo"],
        **options,
        precision="fp32",
        setting="reset",
        rounds=None,
        concentration=None,
        workers=2,
        micro_batch=None,
    )
    with whole.network:
        assert sum(whole.run()) == 2 * 3 * 24
    expected = {
        (run.seed, domain.name, domain.severity, label): (domain.ids_sha256, counts(part))
        for run in whole.runs
        for domain in run.domains
        for label, part in domain.methods.items()
    }
    found = {}
    for job in made:
        results = read(tmp_path / "cells" / f"{job.cell.name}.json", job.cell)
        place = (results.run.seed, results.domain.name, results.domain.severity, job.cell.label)
        found[place] = (results.domain.ids_sha256, counts(results.part))
    assert found == expected
    assert len(found) == len(list((tmp_path / "cells").iterdir())) == 12


def test_finished_cells_are_not_done_again(jobs: Callable[..., list[Job]], tmp_path: Path) -> None:
    made = jobs()
    swept(tmp_path, made)
    before = times(tmp_path)
    damaged, foreign, *others = sorted((tmp_path / "cells").iterdir())
    foreign.write_bytes(damaged.read_bytes())
    damaged.write_bytes(damaged.read_bytes()[:-100])
    (tmp_path / "cells" / "stray.json").write_text("{}")
    again = Sweep.open(tmp_path, made)
    assert [note.split(":")[0] for note in again.notes] == [
        f"{damaged} cannot be used and is done again",
        f"{foreign} cannot be used and is done again",
        f"{tmp_path / 'cells' / 'stray.json'} is no cell of this sweep; it is left as it is",
    ]
    assert sorted(f"{job.cell.name}.json" for job in again.pending) == [damaged.name, foreign.name]
    assert sum(again.run(partial(run_locally, processes=1), print)) == 80
    after = times(tmp_path)
    assert (tmp_path / "cells" / "stray.json").read_text() == "{}"
    assert {name for name in before if before[name] == after[name]} == {path.name for path in others}
    assert not Sweep.open(tmp_path, made).pending


def _of_method(document: Any) -> Any:
    return document["runs"][0]["domains"][0]["methods"]["no_adapt"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda document: document.update(schema=1),
        lambda document: document.update(runs=[]),
        lambda document: document["runs"][0].update(complete=False),
        lambda document: document["runs"][0]["domains"][0].update(severity=4),
        lambda document: _of_method(document)["bins"].update(images=[41] + [0] * 14),
        lambda document: _of_method(document).pop("correct"),
        lambda document: document["cell"].update(seed=8),
        lambda document: document.pop("cell"),
    ],
)
def test_no_cell_that_is_not_whole_counts(
    jobs: Callable[..., list[Job]], tmp_path: Path, spoil: Callable[[Any], None]
) -> None:
    job = jobs(["no_adapt"])[0]
    document = compute(job, 1)
    path = tmp_path / "cell.json"
    path.write_text(json.dumps(document))
    assert counts(read(path, job.cell).part)[0] == 40
    spoil(document)
    path.write_text(json.dumps(document))
    with pytest.raises(InputError):
        read(path, job.cell)


def test_a_grid_may_grow_but_not_change(jobs: Callable[..., list[Job]], tmp_path: Path) -> None:
    small = jobs(["no_adapt"], corruptions=("contrast",))
    swept(tmp_path, small)
    before = times(tmp_path)
    larger = jobs(["no_adapt"], corruptions=("contrast", "clean"))
    assert [job.cell.domain for job in Sweep.open(tmp_path, larger).pending] == ["clean"]
    swept_later = swept_pending(tmp_path, larger)
    assert len(swept_later.finished) == 2
    assert before.items() <= times(tmp_path).items()
    with pytest.raises(InputError, match="holds a sweep with 1 cells that are not in this one"):
        Sweep.open(tmp_path, small)
    with pytest.raises(InputError, match="holds a sweep with 2 cells that are not in this one"):
        Sweep.open(tmp_path, jobs(["no_adapt"], corruptions=("contrast", "clean"), batch_size=16))
    (tmp_path / "sweep.json").write_text("{}")
    with pytest.raises(InputError, match="is not the grid of a sweep"):
        Sweep.open(tmp_path, larger)


def swept_pending(folder: Path, jobs: Sequence[Job]) -> Sweep:
    sweep = Sweep.open(folder, jobs)
    list(sweep.run(partial(run_locally, processes=1), print))
    return sweep


def test_the_grid_is_written_before_the_work(jobs: Callable[..., list[Job]], tmp_path: Path) -> None:
    made = jobs()

    def nobody(pending: Sequence[Job]) -> Any:
        written = json.loads((tmp_path / "sweep.json").read_bytes())
        assert written["cells"] == [job.cell.name for job in made]
        assert written["grid"]["seeds"] == [7]
        assert written["grid"]["domains"] == [
            {"name": "gaussian_noise", "severity": 3},
            {"name": "contrast", "severity": 3},
        ]
        yield from ()

    assert list(Sweep.open(tmp_path, made).run(nobody, print)) == []


def test_images_are_counted_once(tmp_path: Path) -> None:
    other = replace(CELL, seed=2)
    events = [
        Seen(CELL, 4),
        Seen(other, 4),
        Again(CELL, "it died"),
        Seen(CELL, 4),
        Seen(CELL, 4),
        Failed(CELL, "too bad"),
        Finished(other, {"no": "results"}),
    ]
    said: list[str] = []
    sweep = Sweep.open(tmp_path, [Job(CELL, "", {}), Job(other, "", {})])
    assert list(sweep.run(lambda jobs: (event for event in events), said.append)) == [4, 4, 0, 0, 4, 2, 6]
    assert said[0].startswith("Again: a model/ü fp32, calm=fozo:rate=0.1, fog 5, seed 1: it died")
    assert sweep.failed[CELL] == "too bad"
    assert "expected the results of a cell" in sweep.failed[other]
    assert list((tmp_path / "cells").iterdir()) == []


def test_threads_do_not_change_results(jobs: Callable[..., list[Job]], tmp_path: Path) -> None:
    made = jobs(["fozo"])
    one, two = swept(tmp_path / "1", made, threads=1), swept(tmp_path / "2", made, processes=1, threads=2)
    for job in made:
        assert two.finished[job.cell].engine["workers"] == 2
        assert counts(one.finished[job.cell].part) == counts(two.finished[job.cell].part)


def test_processes_share_the_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fozo.eval.sweep.local.available_cpus", lambda: 8)
    assert [default_processes(threads) for threads in (1, 2, 3, 8, 16)] == [8, 4, 2, 1, 1]


@needs_proc
def test_a_killed_process_loses_nothing(jobs: Callable[..., list[Job]], tmp_path: Path) -> None:
    made = jobs(corruptions=("gaussian_noise", "contrast", "clean"), batch_size=2)
    assert len(made) == 6
    calm = {job.cell: counts(swept_part) for job, swept_part in parts(swept(tmp_path / "calm", made))}
    killed: set[int] = set()

    def disturbed(pending: Sequence[Job]) -> Iterator[Event]:
        with contextlib.closing(run_locally(pending, 2)) as events:
            for event in events:
                if isinstance(event, Seen) and not killed:
                    killed.add(min(workers()))
                    os.kill(min(killed), signal.SIGKILL)
                happened.append(event)
                yield event

    happened: list[Event] = []
    sweep = Sweep.open(tmp_path / "disturbed", made)
    images = list(sweep.run(disturbed, print))  # type: ignore[arg-type]
    assert sum(images) == 6 * 40
    again = [event for event in happened if isinstance(event, Again)]
    assert [event.reason for event in again] == [
        "its process was ended by signal 9 (Killed), perhaps as memory ran out"
    ]
    finished = [event.cell for event in happened if isinstance(event, Finished)]
    assert sorted(finished, key=made_order(made)) == [job.cell for job in made]
    assert {cell: counts(found.part) for cell, found in sweep.finished.items()} == calm
    assert sorted(times(tmp_path / "disturbed")) == sorted(f"{job.cell.name}.json" for job in made)
    assert workers() == set()


def parts(sweep: Sweep) -> Iterator[tuple[Job, MethodResult]]:
    return ((job, sweep.finished[job.cell].part) for job in sweep.jobs)


def made_order(jobs: Sequence[Job]) -> Callable[[Cell], int]:
    return [job.cell for job in jobs].index


@needs_proc
def test_a_cell_that_always_dies_is_given_up(jobs: Callable[..., list[Job]]) -> None:
    made = jobs(batch_size=1)
    doomed, armed = made[0].cell, True
    happened: list[Event] = []
    for event in run_locally(made, processes=1, retries=1):
        happened.append(event)
        if event.cell == doomed and isinstance(event, Again):
            armed = True
        if event == Seen(doomed, 1) and armed:
            os.kill(min(workers()), signal.SIGKILL)
            armed = False
    ends = {e.cell: e for e in happened if isinstance(e, (Finished, Failed))}
    assert [e.cell for e in happened if isinstance(e, Again)] == [doomed]
    assert "signal 9" in getattr(ends.pop(doomed), "reason", "")
    assert [type(ends[job.cell]) for job in made[1:]] == [Finished] * 3
    assert isinstance(happened[-1], Failed), "it is tried again last"


@needs_proc
def test_closing_ends_all_processes(jobs: Callable[..., list[Job]]) -> None:
    events = run_locally(jobs(batch_size=1), processes=2)
    while not isinstance(next(events), Seen):
        pass
    begun = workers()
    assert 1 <= len(begun) <= 2
    before = time.monotonic()
    events.close()
    assert time.monotonic() - before < 5
    assert workers() == set()


def test_what_a_process_says_last_is_the_reason(
    jobs: Callable[..., list[Job]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = tmp_path / "onnxruntime.py"
    package.write_text("raise RuntimeError('no such processor')")
    monkeypatch.syspath_prepend(str(tmp_path))
    events = list(run_locally(jobs(["no_adapt"], corruptions=("contrast",)), processes=1, retries=1))
    assert [type(event) for event in events] == [Again, Failed]
    assert "its process ended with code 1: RuntimeError: no such processor" in getattr(
        events[-1], "reason", ""
    )


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (InputError("image 3 is damaged"), {"error": "image 3 is damaged", "again": False}),
        (ComputeError("no memory; use less"), {"error": "no memory; use less", "again": True}),
        (MemoryError(), {"error": "MemoryError", "again": True}),
    ],
)
def test_only_lack_of_memory_is_tried_again(
    jobs: Callable[..., list[Job]], monkeypatch: pytest.MonkeyPatch, error: Exception, said: dict[str, Any]
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("fozo.eval.sweep.worker.compute", fail)
    heard: list[Any] = []
    answer({**jobs()[0].to_json(), "threads": 1}, heard.append)
    assert heard == [said]


# --- tables ---


def cell_results(cell: Cell, correct: int, seconds: float = 2.0) -> CellResults:
    """A cell with so many right predictions, all made with a confidence of 0.9."""
    tally = Tally(cell.images, correct, cell.images, nll=float(cell.images))
    tally.bin_images[13] = cell.images
    tally.bin_confidence[13] = 0.9 * cell.images
    tally.bin_correct[13] = correct
    part = MethodResult(tally, batches=5, forwards=10, seconds=seconds, peak_bytes=100_000_000)
    domain = DomainResult(
        cell.domain, {cell.label: part}, cell.severity, images=cell.images, complete=True, ids_sha256="c" * 64
    )
    return CellResults(
        Protocol("x", "reset", (), "all", (cell.seed,), 4, "all"),
        bundle={},
        engine={},
        methods={},
        versions={"onnxruntime": "1.99"},
        machine={"model": "Fast, and cheap"},
        runs=[Run(cell.seed, [domain], {cell.label: Trace()}, complete=True)],
        cell=cell,
    )


@pytest.fixture
def finished() -> dict[Cell, CellResults]:
    """Two seeds of fog at two severities, rain, and clean; 10 images each."""
    right = {
        ("fog", 1): (9, 7),
        ("fog", 5): (5, 3),
        ("rain", 5): (1, 5),
        ("clean", None): (10, 10),
    }
    return {
        cell: cell_results(cell, values[index])
        for (name, severity), values in right.items()
        for index in (0, 1)
        for cell in [replace(CELL, label="m", domain=name, severity=severity, seed=index)]
    }


def test_averages_by_hand(finished: dict[Cell, CellResults]) -> None:
    (summary,) = table.summaries(list(finished), finished)
    # Seeds: fog (.9 + .5) / 2 and (.7 + .3) / 2; rain .1 and .5; clean 1. The spread of .7 and .5 is .2 / √2.
    assert summary.domains["fog"]["accuracy"] == pytest.approx(0.6)
    assert summary.domains["fog"]["accuracy_std"] == pytest.approx(0.2 / np.sqrt(2))
    assert summary.domains["rain"] == {
        "accuracy": pytest.approx(0.3),
        "accuracy_std": pytest.approx(0.4 / np.sqrt(2)),
    }
    assert summary.domains["clean"] == {"accuracy": 1.0, "accuracy_std": 0.0}
    # Without clean: (.9 + .5 + .1) / 3 = .5 and (.7 + .3 + .5) / 3 = .5.
    assert summary.average["accuracy"] == pytest.approx(0.5)
    assert summary.average["accuracy_std"] == pytest.approx(0, abs=1e-12)
    assert summary.average["ece"] == pytest.approx(np.mean([0, 0.4, 0.8, 0.2, 0.6, 0.4]))
    assert summary.average["forwards_per_batch"] == 2
    assert summary.average["images_per_second"] == pytest.approx(5)
    assert (summary.cells, summary.finished) == (8, 8)


def test_the_table_for_people(finished: dict[Cell, CellResults]) -> None:
    lost = next(cell for cell in finished if cell.domain == "rain" and cell.seed == 1)
    other = {replace(cell, label="two words"): found for cell, found in finished.items()}
    for cell, found in other.items():
        other[cell] = cell_results(cell, found.part.tally.top1)
    cells = [*finished, *other]
    del finished[lost]
    made = table.summaries(cells, {**finished, **other})
    assert table.text(made).splitlines() == [
        "a model/ü fp32",
        "accuracy, %              m      two words",
        "fog          60.00 ± 14.14  60.00 ± 14.14",
        "rain                 10.00  30.00 ± 28.28",
        "clean        100.00 ± 0.00  100.00 ± 0.00",
        "average       50.00 ± 0.00   50.00 ± 0.00",
        "",
        "method     top-5 %  ECE %    NLL  forwards  images/s  process MB   cells",
        "m           100.00  40.00  1.000         2       5.0         100  7 of 8",
        "two words   100.00  40.00  1.000         2       5.0         100       8",
    ]


def test_the_table_for_machines(finished: dict[Cell, CellResults]) -> None:
    rows = list(csv.DictReader(io.StringIO(table.csv_rows(finished))))
    assert len(rows) == 8
    assert rows[2] == {
        "model": "a model/ü",
        "bundle_sha256": "b" * 64,
        "precision": "fp32",
        "method": "m",
        "domain": "fog",
        "severity": "5",
        "seed": "0",
        "accuracy": "0.5",
        "top5_accuracy": "1.0",
        "ece": "0.4",
        "nll": "1.0",
        "images": "10",
        "correct": "5",
        "batches": "5",
        "forwards": "10",
        "guarded": "0",
        "seconds": "2.0",
        "images_per_second": "5.0",
        "peak_bytes": "100000000",
        "onnxruntime": "1.99",
        "cpu": "Fast, and cheap",
        "file": f"{list(finished)[2].name}.json",
    }
    assert rows[-1]["severity"] == ""
    assert table.csv_rows({}) == ""


# --- the command ---


@pytest.fixture
def damaged(tmp_path: Path, random_images: Callable[..., Any]) -> tuple[Path, Path]:
    """Two corruptions in ImageNet-C's layout, and the image of one of them that is damaged."""
    for number, name in enumerate(("fog", "snow")):
        save_pictures(tmp_path / "data" / name / "5", random_images(20, number))
    image = tmp_path / "data" / "fog" / "5" / "class03" / "03.png"
    image.write_bytes(image.read_bytes()[:200])
    return tmp_path / "data", image


def test_a_cell_that_fails_leaves_the_others(
    bundle_path: Path, damaged: tuple[Path, Path], tmp_path: Path
) -> None:
    data, image = damaged
    arguments = [bundle_path, "--data", data, "--corruptions", "fog,snow", "-m", "no_adapt", "-m", "shift"]
    arguments += ["--seeds", "1", "--out", tmp_path / "out", "--json", "--quiet"]

    def run() -> subprocess.CompletedProcess[str]:
        command = [*COMMAND, *map(str, arguments)]
        return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)

    result = run()
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    first, *failures, last = result.stderr.splitlines()
    assert first == f"4 cells, 0 of them finished in {tmp_path / 'out'}"
    assert len(failures) == 2
    assert all(line.startswith("Failed: random-64-3-64 fp32, ") and str(image) in line for line in failures)
    assert last.startswith("Error: 2 of 4 cells failed, such as random-64-3-64 fp32, ")
    document = json.loads(result.stdout)
    assert (document["cells"], document["finished"], len(document["failed"])) == (4, 2, 2)
    assert [(each["method"], each["finished"]) for each in document["averages"]] == [
        ("no_adapt", 1),
        ("shift", 1),
    ]
    assert all(list(each["domains"]) == ["snow"] for each in document["averages"])
    before = times(tmp_path / "out")
    assert len(before) == 2

    image.write_bytes((image.parent.parent / "class04" / "04.png").read_bytes())
    result = run()
    assert (result.returncode, result.stderr) == (0, f"4 cells, 2 of them finished in {tmp_path / 'out'}\n")
    assert len(times(tmp_path / "out")) == 4
    assert before.items() <= times(tmp_path / "out").items()
    with (tmp_path / "out" / "sweep.csv").open(newline="") as stream:
        assert [(row["domain"], row["method"]) for row in csv.DictReader(stream)] == [
            ("fog", "no_adapt"),
            ("fog", "shift"),
            ("snow", "no_adapt"),
            ("snow", "shift"),
        ]


def begun(bundle: Path, pictures: Path, out: Path) -> subprocess.Popen[str]:
    """A sweep of 30 cells of which one is finished, with the processes that compute the others."""
    arguments = [bundle, "--generate-from", pictures, "--corruptions", "contrast,fog,clean", "--seeds", "10"]
    arguments += ["-m", "fozo:samples=4", "--batch-size", "1", "--processes", "2", "--out", out]
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    end = time.monotonic() + 120
    while not list((out / "cells").glob("*.json")) or len(children(process.pid)) < 2:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)
    return process


@needs_proc
def test_interrupt(bundle_path: Path, pictures: Path, tmp_path: Path) -> None:
    process = begun(bundle_path, pictures, tmp_path / "out")
    watchdog = threading.Timer(100, process.kill)
    watchdog.start()
    at_work = children(process.pid)
    before = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
    output, errors = process.communicate()
    watchdog.cancel()
    assert time.monotonic() - before < 10
    assert (process.returncode, errors.strip()) == (130, "Interrupted.")
    assert gone(at_work, 5)
    kept = times(tmp_path / "out")
    assert 0 < len(kept) < 30
    assert all(name.endswith(".json") and not name.startswith(".") for name in kept)
    assert f"{len(kept)} of 30 cells: {tmp_path / 'out' / 'sweep.csv'}" in output
    assert len((tmp_path / "out" / "sweep.csv").read_text().splitlines()) == 1 + len(kept)


@needs_proc
def test_without_the_driver_no_process_goes_on(bundle_path: Path, pictures: Path, tmp_path: Path) -> None:
    process = begun(bundle_path, pictures, tmp_path / "out")
    at_work = children(process.pid)
    process.kill()
    process.communicate()
    assert gone(at_work, 20)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ray-env", "A=1"], "--ray-env goes with --ray"),
        (["--ray", "auto", "--processes", "2"], "--processes is for this machine"),
        (["--ray", "auto", "--ray-env", "=1"], "expected --ray-env NAME=VALUE"),
        (["--severities", "0-5"], "expected numbers in 1-5"),
    ],
)
def test_options_that_do_not_go_together(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(cli, ["sweep", *arguments])
    assert result.exit_code == 2
    assert message in result.output
