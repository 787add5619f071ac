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
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import fozo
import numpy as np
import pytest
from click.testing import CliRunner
from doubles import child_environment, fozo_command, run_fozo, save_class_folders
from fozo.cli import cli
from fozo.engine.errors import ComputeError, InputError
from fozo.eval.datasets.dataset_request import DatasetRequest
from fozo.eval.protocol import Protocol
from fozo.eval.report.digest.sources import collect
from fozo.eval.results import results_file as results
from fozo.eval.results.average import averages
from fozo.eval.results.bits import Bits
from fozo.eval.results.metrics import Tally
from fozo.eval.results.outcome import DomainResult, MethodResult, Run, Trace
from fozo.eval.results.table import summary
from fozo.eval.streaming.experiment import prepare
from fozo.eval.streaming.spec import EvaluationSpec
from fozo.eval.sweep import sweep_table as table
from fozo.eval.sweep.cell import Cell, Job, compute
from fozo.eval.sweep.cell_results import CellResults, read_cell_results
from fozo.eval.sweep.cell_worker import answer
from fozo.eval.sweep.events import Event, Failed, Finished, Processed, Retried
from fozo.eval.sweep.folder import Sweep
from fozo.eval.sweep.graph import Graph, Stream, choose_comparable, merge_cells
from fozo.eval.sweep.local import default_processes, run_locally
from fozo.eval.sweep.plan import plan

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


def plan_named(bundles: Sequence[Path], methods: Sequence[str], **options: Any) -> list[Job]:
    """Plan a sweep by the options of the command line."""
    precisions = options.pop("precisions")
    return plan(EvaluationSpec.from_options(bundles[0], list(methods), **options), bundles, precisions)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory, random_images: Callable[..., Any]) -> Path:
    """40 clean images in 20 classes, which is what the small bundles predict."""
    return save_class_folders(tmp_path_factory.mktemp("pictures"), random_images(40))


@pytest.fixture
def jobs(bundle_path: Path, pictures: Path) -> Callable[..., list[Job]]:
    """`jobs(methods=…, **options)`: a grid over generated corruptions of the pictures."""

    def make(methods: Sequence[str] = ("no_adapt", "fozo"), **options: Any) -> list[Job]:
        return plan_named([bundle_path], methods, **{**OPTIONS, "generate_from": pictures, **options})

    return make


def counts(part: MethodResult) -> tuple[Any, ...]:
    """All that must not depend on how the work was done: to the bit."""
    tally = part.tally
    bins = (tally.bin_images.tolist(), tally.bin_confidence.tolist(), tally.bin_correct.tolist())
    costs = (part.batches, part.forwards, part.guarded)
    return tally.images, tally.top1, tally.top5, tally.nll, *bins, *costs, part.right.array().tolist()


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
            return "fozo.eval.sweep.cell_worker" in Path(f"/proc/{pid}/cmdline").read_text()
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
    made = plan_named(
        [int8_bundle_path], ["no_adapt", "x=shift"], **{**options, "precisions": ("fp32", "int8")}
    )
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

    both = plan_named([bundle_paths[64], bundle_paths[192]], ["no_adapt"], **options)
    assert [job.cell.model for job in both[:2]] == ["random-64-3-64", "random-192-2-192"]
    assert len(both) == 12


def test_a_subset_is_chosen_anew_for_each_seed(jobs: Callable[..., list[Job]]) -> None:
    first, second = jobs(["no_adapt"], corruptions=("fog",), seeds=2, subset="10")
    assert first.cell.images == second.cell.images == 10
    assert first.cell.images_sha256 != second.cell.images_sha256
    assert first.cell == jobs(["no_adapt"], corruptions=("fog", "clean"), subset="10")[0].cell


def test_a_plain_folder_is_one_domain_whatever_the_severities(bundle_path: Path, pictures: Path) -> None:
    options = {**OPTIONS, "dataset": "imagefolder", "data": pictures, "corruptions": None}
    (job,) = plan_named([bundle_path], ["no_adapt"], **{**options, "severities": (1, 2, 3)})
    assert (job.cell.domain, job.cell.severity, job.cell.images) == ("imagefolder", None, 40)
    assert compute(job, 1)["runs"][0]["domains"][0]["methods"]["no_adapt"]["images"] == 40


def test_clean_images_of_another_folder_are_a_domain_too(
    bundle_path: Path, pictures: Path, tmp_path: Path, random_images: Callable[..., Any]
) -> None:
    for severity in (1, 5):
        save_class_folders(tmp_path / "fog" / str(severity), random_images(20, severity))
    options = {**OPTIONS, "data": tmp_path, "clean": pictures, "corruptions": ("fog",)}
    made = plan_named([bundle_path], ["no_adapt"], **{**options, "severities": (1, 5)})
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
        plan_named([bundle_path, bundle_path], ["no_adapt"], **{**OPTIONS, "generate_from": pictures})


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
    spec = EvaluationSpec.from_options(bundle_path, ["no_adapt", "fozo"], **options, workers=2)
    whole = prepare(spec)
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
        cell = read_cell_results(tmp_path / "cells" / f"{job.cell.name}.json", job.cell)
        place = (cell.run.seed, cell.domain.name, cell.domain.severity, job.cell.label)
        found[place] = (cell.domain.ids_sha256, counts(cell.method_result))
    assert found == expected
    assert len(found) == len(list((tmp_path / "cells").iterdir())) == 12

    (graph,) = sweep.save_tables()
    path = tmp_path / "results" / f"random_64_3_64-fp32-{made[0].cell.bundle[:8]}.json"
    assert list((tmp_path / "results").iterdir()) == [path]
    together = results.read(path)
    assert together.complete
    assert together.protocol == whole.protocol
    assert together.methods == whole.results.methods
    assert together.bundle == whole.results.bundle
    document = json.loads(path.read_text())
    assert timeless(document["runs"]) == timeless(json.loads(json.dumps(whole.results.to_json()))["runs"])
    expected_averages = {label: asdict(average) for label, average in averages(whole.runs).items()}
    assert timeless(document["average"]) == timeless(expected_averages)
    assert document["average"]["fozo"]["gain"] is not None
    (_, summary) = table.summaries([graph])
    assert summary.average == averages(together.runs)["fozo"]


def timeless(document: Any) -> Any:
    """A document without what depends on the clock and on the memory of a process."""
    if isinstance(document, dict):
        drop = ("seconds", "peak_bytes", "images_per_second")
        return {key: timeless(value) for key, value in document.items() if key not in drop}
    return [timeless(each) for each in document] if isinstance(document, list) else document


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
        f"{damaged} cannot be used and is computed again",
        f"{foreign} cannot be used and is computed again",
        f"{tmp_path / 'cells' / 'stray.json'} is no cell of this sweep and is ignored",
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
    assert counts(read_cell_results(path, job.cell).method_result)[0] == 40
    spoil(document)
    path.write_text(json.dumps(document))
    with pytest.raises(InputError):
        read_cell_results(path, job.cell)


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
        Processed(CELL, 4),
        Processed(other, 4),
        Retried(CELL, "it died"),
        Processed(CELL, 4),
        Processed(CELL, 4),
        Failed(CELL, "too bad"),
        Finished(other, {"no": "results"}),
    ]
    said: list[str] = []
    spec = EvaluationSpec(Path(), ("fozo",), DatasetRequest("imagenet-c"))
    sweep = Sweep.open(tmp_path, [Job(CELL, spec), Job(other, spec)])
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
        assert counts(one.finished[job.cell].method_result) == counts(two.finished[job.cell].method_result)


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
                if isinstance(event, Processed) and not killed:
                    killed.add(min(workers()))
                    os.kill(min(killed), signal.SIGKILL)
                happened.append(event)
                yield event

    happened: list[Event] = []
    sweep = Sweep.open(tmp_path / "disturbed", made)
    images = list(sweep.run(disturbed, print))  # type: ignore[arg-type]
    assert sum(images) == 6 * 40
    again = [event for event in happened if isinstance(event, Retried)]
    assert [event.reason for event in again] == [
        "its process was ended by signal 9 (Killed), perhaps as memory ran out"
    ]
    finished = [event.cell for event in happened if isinstance(event, Finished)]
    assert sorted(finished, key=made_order(made)) == [job.cell for job in made]
    assert {cell: counts(found.method_result) for cell, found in sweep.finished.items()} == calm
    assert sorted(times(tmp_path / "disturbed")) == sorted(f"{job.cell.name}.json" for job in made)
    assert workers() == set()


def parts(sweep: Sweep) -> Iterator[tuple[Job, MethodResult]]:
    return ((job, sweep.finished[job.cell].method_result) for job in sweep.jobs)


def made_order(jobs: Sequence[Job]) -> Callable[[Cell], int]:
    return [job.cell for job in jobs].index


@needs_proc
def test_a_cell_that_always_dies_is_given_up(jobs: Callable[..., list[Job]]) -> None:
    made = jobs(batch_size=1)
    doomed, armed = made[0].cell, True
    happened: list[Event] = []
    for event in run_locally(made, processes=1, retries=1):
        happened.append(event)
        if event.cell == doomed and isinstance(event, Retried):
            armed = True
        if event == Processed(doomed, 1) and armed:
            os.kill(min(workers()), signal.SIGKILL)
            armed = False
    ends = {e.cell: e for e in happened if isinstance(e, (Finished, Failed))}
    assert [e.cell for e in happened if isinstance(e, Retried)] == [doomed]
    assert "signal 9" in getattr(ends.pop(doomed), "reason", "")
    assert [type(ends[job.cell]) for job in made[1:]] == [Finished] * 3
    assert isinstance(happened[-1], Failed), "it is tried again last"


@needs_proc
def test_closing_ends_all_processes(jobs: Callable[..., list[Job]]) -> None:
    events = run_locally(jobs(batch_size=1), processes=2)
    while not isinstance(next(events), Processed):
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
    assert [type(event) for event in events] == [Retried, Failed]
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

    monkeypatch.setattr("fozo.eval.sweep.cell_worker.compute", fail)
    heard: list[Any] = []
    answer({**jobs()[0].to_json(), "threads": 1}, heard.append)
    assert heard == [said]


# --- tables ---


def cell_results(cell: Cell, correct: int, lost: int = 0, **facts: Any) -> CellResults:
    """A cell whose first images are right, but for those lost, all predicted with a confidence of 0.9."""
    tally = Tally(cell.images, correct, cell.images, nll=float(cell.images))
    tally.bin_images[13] = cell.images
    tally.bin_confidence[13] = 0.9 * cell.images
    tally.bin_correct[13] = correct
    right = Bits([lost <= index < lost + correct for index in range(cell.images)])
    part = MethodResult(tally, right, batches=5, forwards=10, seconds=2.0, peak_bytes=100_000_000)
    domain = DomainResult(
        cell.domain, {cell.label: part}, cell.severity, images=cell.images, complete=True, ids_sha256="c" * 64
    )
    return CellResults(
        Protocol("x", "reset", (), "all", (cell.seed,), 4, "all"),
        bundle={},
        engine={"workers": 1},
        methods={cell.label: {"method": cell.method, "options": dict(cell.options)}},
        runs=[Run(cell.seed, [domain], {cell.label: Trace([cell.images], [correct])}, complete=True)],
        cell=cell,
        **{"versions": {"onnxruntime": "1.99"}, "machine": {"model": "Fast, and cheap"}, **facts},
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
    (summary,) = table.summaries(merge_cells(list(finished), finished))
    assert summary.average is not None
    # Seeds: fog (.9 + .5) / 2 and (.7 + .3) / 2; rain .1 and .5; clean 1. The spread of .7 and .5 is .2 / √2.
    assert summary.domains["fog"].accuracy == pytest.approx(0.6)
    assert summary.domains["fog"].accuracy_std == pytest.approx(0.2 / np.sqrt(2))
    assert summary.domains["rain"].accuracy == pytest.approx(0.3)
    assert summary.domains["rain"].accuracy_std == pytest.approx(0.4 / np.sqrt(2))
    assert [summary.domains["clean"].value(name) for name in ("accuracy", "accuracy_std")] == [1.0, 0.0]
    # Without clean: (.9 + .5 + .1) / 3 = .5 and (.7 + .3 + .5) / 3 = .5.
    assert summary.average.accuracy == pytest.approx(0.5)
    assert summary.average.accuracy_std == pytest.approx(0, abs=1e-12)
    assert summary.average.ece == pytest.approx(np.mean([0, 0.4, 0.8, 0.2, 0.6, 0.4]))
    assert summary.average.forwards_per_batch == 2
    assert summary.average.images_per_second == pytest.approx(5)
    assert (summary.cells, summary.finished, summary.compared) == (8, 8, 8)
    assert summary.average.gain is None


def test_the_table_for_people(finished: dict[Cell, CellResults]) -> None:
    both = with_another(finished, "two words", {"fog": 1, "rain": 2})
    assert table.format_tables(merge_cells(list(both), both)).splitlines() == [
        "a model/ü fp32",
        "top-1 accuracy, %              m        two words  ",
        "fog                60.00 ± 14.14    70.00 ± 14.14*~",
        "rain               30.00 ± 28.28    50.00 ± 28.28*~",
        "clean              100.00 ± 0.00*   100.00 ± 0.00*~",
        "",
        *summary([run for graph in merge_cells(list(both), both) for run in runs_of(graph)]).splitlines(),
    ]


def runs_of(graph: Graph) -> list[Run]:
    assert graph.results is not None
    return graph.results.runs


def with_another(
    finished: dict[Cell, CellResults], label: str, gains: dict[str, int], lost: int = 0
) -> dict[Cell, CellResults]:
    """Beside a method another one, that has so many more images right in some domains."""
    other = {}
    for cell, found in finished.items():
        correct = found.method_result.tally.top1 + gains.get(cell.domain, 0)
        other[replace(cell, label=label)] = cell_results(replace(cell, label=label), correct, lost)
    return {**finished, **other}


def test_gains_are_paired_image_by_image(finished: dict[Cell, CellResults]) -> None:
    """In fog an image is gained and another lost, which accuracies do not show."""
    corrupted = {cell: found for cell, found in finished.items() if cell.domain != "clean"}
    both = with_another(corrupted, "b", {"rain": 2}, lost=1)
    (graph,) = merge_cells(list(both), both)
    first, second = runs_of(graph)
    gains = {
        (run.seed, each.name, each.severity): each.gained_and_lost("b")
        for run in (first, second)
        for each in run.domains
    }
    expected = {
        (seed, name, severity): (np.sum(there & ~here), np.sum(here & ~there))
        for cell, found in both.items()
        if cell.label == "m"
        for seed, name, severity in [(cell.seed, cell.domain, cell.severity)]
        for here in [found.method_result.right.array()]
        for there in [both[replace(cell, label="b")].method_result.right.array()]
    }
    assert gains == expected
    assert gains[0, "fog", 5] == (1, 1)
    assert gains[0, "rain", 5] == (3, 1)
    average = table.summaries([graph])[1].average
    assert average is not None
    assert average.gain == pytest.approx((0 + 0 + 0.2) / 3)
    assert average.gain_is_noise
    surer = with_another(finished, "b", {"fog": 1})
    (found,) = [
        each.average for each in table.summaries(merge_cells(list(surer), surer)) if each.method == "b"
    ]
    assert found is not None
    # Fog gains 0.1 of 10 images at both severities, rain nothing; the seeds have the same images and gains.
    one, none = np.sqrt((3 / 10 - 0.1**2) / 10), np.sqrt((2 / 10) / 10)
    assert found.gain == pytest.approx(0.2 / 3)
    assert found.gain_error == pytest.approx(np.sqrt((2 * one) ** 2 + none**2) / 3)


# --- what is compared when not all is finished ---


def streams(*numbers: int) -> set[Stream]:
    return {(number, "fog", 5) for number in numbers}


@pytest.mark.parametrize(
    ("done", "labels", "shared"),
    [
        ({"a": [1, 2, 3], "b": [1, 2, 3]}, "ab", [1, 2, 3]),
        ({"a": [1, 2, 3], "b": [1, 2]}, "ab", [1, 2]),  # as cells come to an end in turn
        ({"a": [1], "b": []}, "a", [1]),
        ({"a": [], "b": [1, 2]}, "b", [1, 2]),  # the first one always fails
        ({"a": [1, 2, 3, 4], "b": [1, 2, 3, 4], "c": [1]}, "ab", [1, 2, 3, 4]),  # c is new
        ({"a": [1, 2, 3, 4], "b": [1, 2, 3, 4], "c": [1, 2, 3]}, "abc", [1, 2, 3]),  # 9 cells and not 8
        ({"a": [1, 2], "b": [2, 3], "c": [4]}, "ab", [2]),  # 2 cells of a and b, as of a alone
        ({"a": [1], "b": [2]}, "a", [1]),
        ({"a": [], "b": []}, "", []),
        ({}, "", []),
    ],
)
def test_methods_are_compared_where_all_are_finished(
    done: dict[str, list[int]], labels: str, shared: list[int]
) -> None:
    found = choose_comparable({label: streams(*numbers) for label, numbers in done.items()})
    assert found == (list(labels), streams(*shared))


def test_a_missing_cell_takes_its_stream_from_the_others(finished: dict[Cell, CellResults]) -> None:
    both = with_another(finished, "b", {"rain": 2})
    cells = list(both)
    for cell in [cell for cell in cells if (cell.label, cell.domain, cell.seed) == ("b", "rain", 0)]:
        del both[cell]
    (graph,) = merge_cells(cells, both)
    assert graph.results is not None
    assert (graph.compared, graph.streams) == (7, 8)
    assert (graph.finished, graph.cells) == ({"m": 8, "b": 7}, {"m": 8, "b": 8})
    assert [(run.seed, run.complete, len(run.domains)) for run in runs_of(graph)] == [
        (0, False, 3),
        (1, True, 4),
    ]
    assert not graph.results.complete
    a, b = (each.average for each in table.summaries([graph]))
    assert a is not None and b is not None
    # Seed 1 alone, as without rain seed 0 has another mean: (.7 + .3 + .5) / 3, and with .7 for .5.
    assert (a.accuracy, a.accuracy_std) == (pytest.approx(0.5), None)
    assert b.accuracy == pytest.approx(1.7 / 3)
    assert b.gain == pytest.approx(0.2 / 3)
    said = "7 of 8 streams are finished with all of these methods; means are over 1 of 2 seeds"
    assert table.format_tables([graph]).splitlines()[1] == said

    for cell in [cell for cell in both if cell.label == "b" and (cell.domain, cell.severity) != ("fog", 1)]:
        del both[cell]
    (graph,) = merge_cells(cells, both)
    assert graph.labels == ["m"]
    assert "without b (2 of 8 cells)" in table.format_tables([graph])
    assert "~" not in table.format_tables([graph])
    left, out = table.summaries([graph])
    assert (left.compared, out.finished, out.compared, out.domains, out.average) == (8, 2, 0, {}, None)


def test_seeds_that_lack_different_domains_are_not_averaged(finished: dict[Cell, CellResults]) -> None:
    cells = list(finished)
    for name, severity, seed in (("fog", 1, 0), ("fog", 1, 1), ("rain", 5, 1)):
        del finished[next(c for c in cells if (c.domain, c.severity, c.seed) == (name, severity, seed))]
    (summary,) = table.summaries(merge_cells(cells, finished))
    assert summary.average is not None
    assert summary.average.accuracy == pytest.approx((0.5 + 0.1) / 2)  # of seed 0 alone
    assert summary.average.accuracy_std is None
    assert "5 of 8 streams are finished with all of these methods; no seed is whole" in table.format_tables(
        merge_cells(cells, finished)
    )
    (again,) = [run for run in runs_of(*merge_cells(cells, finished)) if run.seed == 1]
    assert [each.name for each in again.domains] == ["fog", "clean"]


def test_what_cells_do_not_agree_on_is_all_said(finished: dict[Cell, CellResults]) -> None:
    cell = next(iter(finished))
    finished[cell] = cell_results(
        cell, 9, versions={"onnxruntime": "2.0"}, machine={"model": "Slow", "int8_features": ["vnni", "amx"]}
    )
    (graph,) = merge_cells(list(finished), finished)
    assert graph.results is not None
    assert graph.results.versions == {"onnxruntime": "2.0; 1.99"}
    assert graph.results.machine == {"model": "Slow; Fast, and cheap", "int8_features": "vnni, amx; None"}
    assert graph.results.engine == {"workers": 1}
    assert graph.results.protocol.seeds == (0, 1)
    assert graph.results.protocol.severities == (1, 5)


def test_graphs_have_names_of_their_own(finished: dict[Cell, CellResults]) -> None:
    cells = [
        replace(cell, bundle=bundle * 64, model=model, precision=precision)
        for cell in finished
        for bundle, model, precision in (("b", "a/b", "fp32"), ("b", "a/b", "int8"), ("c", "a b", "fp32"))
    ]
    found = merge_cells(cells, {})
    assert [graph.name for graph in found] == ["a_b-fp32-bbbbbbbb", "a_b-int8-bbbbbbbb", "a_b-fp32-cccccccc"]
    assert all(graph.results is None for graph in found)
    assert table.format_tables(found) == ""
    assert table.summaries(found) == []


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
        save_class_folders(tmp_path / "data" / name / "5", random_images(20, number))
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
        return run_fozo("sweep", *arguments)

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
    assert [(row["domain"], row["label"]) for row in reported(tmp_path / "out")] == [
        ("snow", "no_adapt"),
        ("snow", "shift"),
    ]
    (source,), _ = collect([tmp_path / "out"])
    assert not source.results.complete

    image.write_bytes((image.parent.parent / "class04" / "04.png").read_bytes())
    result = run()
    assert (result.returncode, result.stderr) == (0, f"4 cells, 2 of them finished in {tmp_path / 'out'}\n")
    assert [row["domain"] for row in reported(tmp_path / "out")] == ["fog", "fog", "snow", "snow"]
    (source,), _ = collect([tmp_path / "out"])
    assert source.results.complete
    assert len(times(tmp_path / "out")) == 4
    assert before.items() <= times(tmp_path / "out").items()
    with (tmp_path / "out" / "sweep.csv").open(newline="") as stream:
        assert [(row["domain"], row["method"]) for row in csv.DictReader(stream)] == [
            ("fog", "no_adapt"),
            ("fog", "shift"),
            ("snow", "no_adapt"),
            ("snow", "shift"),
        ]


def reported(folder: Path) -> list[dict[str, str]]:
    """The rows of `fozo report` of a sweep's folder, which is the same as that of the results in it."""
    said = []
    for place in (folder, folder / "results"):
        result = CliRunner().invoke(cli, ["report", str(place), "--csv", str(folder.parent / "report.csv")])
        assert (result.exit_code, result.output) == (0, f"Wrote {folder.parent / 'report.csv'}\n")
        said.append(list(csv.DictReader(io.StringIO((folder.parent / "report.csv").read_text()))))
    assert said[0] == said[1]
    return said[0]


def test_a_sweep_of_two_graphs_is_a_report_of_two_files(
    int8_bundle_path: Path, pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = ["sweep", int8_bundle_path, "--generate-from", pictures, "--corruptions", "contrast"]
    arguments += ["--precision", "fp32", "--precision", "int8", "-m", "no_adapt", "-m", "shift"]
    arguments += ["--seeds", "2", "--out", out, "--quiet"]
    result = CliRunner().invoke(cli, [str(each) for each in arguments])
    assert result.exit_code == 0, result.output
    assert result.output.count("noise away from no_adapt") == 2
    assert result.output.endswith(f"All cells: {out / 'sweep.csv'}\nFor fozo report: {out / 'results'}\n")
    (out / "notes.json").write_text("{}")
    sources, passed = collect([out])
    assert [source.results.bundle["precision"] for source in sources] == ["fp32", "int8"]
    assert passed == [out / "notes.json"], "the grid is no surprise, other files are"
    for source in sources:
        assert [run.complete for run in source.results.runs] == [True, True]
        cells = [json.loads(path.read_text()) for path in (out / "cells").iterdir()]
        correct = {
            (cell["cell"]["precision"], cell["cell"]["seed"], cell["cell"]["label"]): _correct(cell)
            for cell in cells
        }
        for run in source.results.runs:
            for label, part in run.domains[0].methods.items():
                precision = source.results.bundle["precision"]
                assert part.tally.top1 == correct[precision, run.seed, label]


def _correct(document: Any) -> int:
    ((part,),) = ([*domain["methods"].values()] for domain in document["runs"][0]["domains"])
    return int(part["correct"])


def test_a_sweep_that_was_killed_has_no_results_yet(jobs: Callable[..., list[Job]], tmp_path: Path) -> None:
    Sweep.open(tmp_path, jobs())
    with pytest.raises(InputError, match=f"{tmp_path} is a sweep without results.*same command fozo sweep"):
        collect([tmp_path])


def begun(bundle: Path, pictures: Path, out: Path) -> subprocess.Popen[str]:
    """A sweep of 30 cells of which one is finished, with the processes that compute the others."""
    arguments = [bundle, "--generate-from", pictures, "--corruptions", "contrast,fog,clean", "--seeds", "10"]
    arguments += ["-m", "fozo:samples=4", "--batch-size", "1", "--processes", "2", "--out", out]
    process = subprocess.Popen(
        fozo_command("sweep", *arguments),
        env=child_environment(),
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
    (source,), _ = collect([tmp_path / "out"])
    assert sum(len(run.domains) for run in source.results.runs) == len(kept)
    assert not source.results.complete
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
