"""The folder of a sweep: finished cells are kept, damaged ones repaired, and grids grow."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fozo.engine.errors import InputError
from fozo.eval.datasets.dataset_request import DatasetRequest
from fozo.eval.results.average import compute_averages
from fozo.eval.results.results_file import read_results
from fozo.eval.streaming.experiment import prepare
from fozo.eval.streaming.spec import EvaluationSpec
from fozo.eval.sweep import sweep_table as table
from fozo.eval.sweep.cell import Job, compute
from fozo.eval.sweep.cell_results import read_cell_results
from fozo.eval.sweep.events import Failed, Finished, Processed, Retried
from fozo.eval.sweep.folder import Sweep
from fozo.eval.sweep.local import run_locally
from sweep_doubles import (
    CELL,
    OPTIONS,
    counts,
    modification_times,
    run_sweep,
)


def test_cells_are_what_one_run_of_all_gives(
    jobs: Callable[..., list[Job]], bundle_path: Path, pictures: Path, tmp_path: Path
) -> None:
    grid = {"corruptions": ("gaussian_noise", "clean"), "severities": (2, 5), "seeds": 2, "subset": "24"}
    planned = jobs(**grid)
    sweep = run_sweep(tmp_path, planned)
    assert not sweep.failed
    assert not sweep.pending
    options = {**OPTIONS, "generate_from": pictures, **grid}
    del options["precisions"]
    spec = EvaluationSpec.from_options(bundle_path, ["no_adapt", "fozo"], **options, workers=2)
    experiment = prepare(spec)
    with experiment.method_networks:
        assert sum(experiment.run()) == 2 * 3 * 24
    expected = {
        (run.seed, domain.name, domain.severity, label): (domain.ids_sha256, counts(result))
        for run in experiment.runs
        for domain in run.domains
        for label, result in domain.methods.items()
    }
    cells = {}
    for job in planned:
        cell = read_cell_results(tmp_path / "cells" / f"{job.cell.name}.json", job.cell)
        key = (cell.run.seed, cell.domain.name, cell.domain.severity, job.cell.label)
        cells[key] = (cell.domain.ids_sha256, counts(cell.method_result))
    assert cells == expected
    assert len(cells) == len(list((tmp_path / "cells").iterdir())) == 12

    (graph,) = sweep.save_tables()
    path = tmp_path / "results" / f"random_64_3_64-fp32-{planned[0].cell.bundle[:8]}.json"
    assert list((tmp_path / "results").iterdir()) == [path]
    together = read_results(path)
    assert together.complete
    assert together.protocol == experiment.protocol
    assert together.methods == experiment.results.methods
    assert together.bundle == experiment.results.bundle
    document = json.loads(path.read_text())
    assert without_times(document["runs"]) == without_times(
        json.loads(json.dumps(experiment.results.to_dict()))["runs"]
    )
    expected_averages = {
        label: asdict(average) for label, average in compute_averages(experiment.runs).items()
    }
    assert without_times(document["average"]) == without_times(expected_averages)
    assert document["average"]["fozo"]["gain"] is not None
    (_, summary) = table.summarize_graphs([graph])
    assert summary.average == compute_averages(together.runs)["fozo"]


def without_times(document: Any) -> Any:
    """Return a document without the values that depend on the clock or on memory."""
    if isinstance(document, dict):
        drop = ("seconds", "peak_bytes", "images_per_second")
        return {key: without_times(value) for key, value in document.items() if key not in drop}
    return [without_times(item) for item in document] if isinstance(document, list) else document


def test_finished_cells_are_not_done_again(jobs: Callable[..., list[Job]], tmp_path: Path) -> None:
    planned = jobs()
    run_sweep(tmp_path, planned)
    before = modification_times(tmp_path)
    damaged, foreign, *untouched = sorted((tmp_path / "cells").iterdir())
    foreign.write_bytes(damaged.read_bytes())
    damaged.write_bytes(damaged.read_bytes()[:-100])
    (tmp_path / "cells" / "stray.json").write_text("{}")
    reopened = Sweep.open(tmp_path, planned)
    assert [note.split(":")[0] for note in reopened.notes] == [
        f"{damaged} cannot be used and is computed again",
        f"{foreign} cannot be used and is computed again",
        f"{tmp_path / 'cells' / 'stray.json'} is no cell of this sweep and is ignored",
    ]
    assert sorted(f"{job.cell.name}.json" for job in reopened.pending) == [damaged.name, foreign.name]
    assert sum(reopened.run(partial(run_locally, processes=1), print)) == 80
    after = modification_times(tmp_path)
    assert (tmp_path / "cells" / "stray.json").read_text() == "{}"
    assert {name for name in before if before[name] == after[name]} == {path.name for path in untouched}
    assert not Sweep.open(tmp_path, planned).pending


def _method_content(document: Any) -> Any:
    return document["runs"][0]["domains"][0]["methods"]["no_adapt"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda document: document.update(schema=1),
        lambda document: document.update(runs=[]),
        lambda document: document["runs"][0].update(complete=False),
        lambda document: document["runs"][0]["domains"][0].update(severity=4),
        lambda document: _method_content(document)["bins"].update(images=[41] + [0] * 14),
        lambda document: _method_content(document).pop("correct"),
        lambda document: document["cell"].update(seed=8),
        lambda document: document["cell"].update(seed="7"),
        lambda document: document["cell"].update(colour="red"),
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
    run_sweep(tmp_path, small)
    before = modification_times(tmp_path)
    larger = jobs(["no_adapt"], corruptions=("contrast", "clean"))
    assert [job.cell.domain for job in Sweep.open(tmp_path, larger).pending] == ["clean"]
    swept_later = run_pending(tmp_path, larger)
    assert len(swept_later.finished) == 2
    assert before.items() <= modification_times(tmp_path).items()
    with pytest.raises(InputError, match="holds a sweep with 1 cells that are not in this one"):
        Sweep.open(tmp_path, small)
    with pytest.raises(InputError, match="holds a sweep with 2 cells that are not in this one"):
        Sweep.open(tmp_path, jobs(["no_adapt"], corruptions=("contrast", "clean"), batch_size=16))
    (tmp_path / "sweep.json").write_text("{}")
    with pytest.raises(
        InputError, match=r"is not the grid of a sweep \(sweep.json: schema: expected 1, found"
    ):
        Sweep.open(tmp_path, larger)


def run_pending(folder: Path, jobs: Sequence[Job]) -> Sweep:
    sweep = Sweep.open(folder, jobs)
    list(sweep.run(partial(run_locally, processes=1), print))
    return sweep


def test_the_grid_is_written_before_the_work(jobs: Callable[..., list[Job]], tmp_path: Path) -> None:
    planned = jobs()

    def nobody(pending: Sequence[Job]) -> Any:
        written = json.loads((tmp_path / "sweep.json").read_bytes())
        assert written["cells"] == [job.cell.name for job in planned]
        assert written["grid"]["seeds"] == [7]
        assert written["grid"]["domains"] == [
            {"name": "gaussian_noise", "severity": 3},
            {"name": "contrast", "severity": 3},
        ]
        yield from ()

    assert list(Sweep.open(tmp_path, planned).run(nobody, print)) == []


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
    lines: list[str] = []
    spec = EvaluationSpec(Path(), ("fozo",), DatasetRequest("imagenet-c"))
    sweep = Sweep.open(tmp_path, [Job(CELL, spec), Job(other, spec)])
    assert list(sweep.run(lambda jobs: (event for event in events), lines.append)) == [4, 4, 0, 0, 4, 2, 6]
    assert lines[0].startswith("Again: a model/ü fp32, calm=fozo:rate=0.1, fog 5, seed 1: it died")
    assert sweep.failed[CELL] == "too bad"
    assert "expected the results of a cell" in sweep.failed[other]
    assert list((tmp_path / "cells").iterdir()) == []
