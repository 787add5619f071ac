"""The command `fozo sweep`: failures, interruptions and reports."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from doubles import child_environment, fozo_command, run_fozo, save_class_folders
from fozo.cli import cli
from fozo.engine.errors import InputError
from fozo.eval.report.digest.sources import collect_results
from fozo.eval.sweep.cell import Job
from fozo.eval.sweep.folder import Sweep
from sweep_doubles import (
    child_processes,
    has_ended,
    modification_times,
    needs_proc,
)


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
    assert [(average["method"], average["finished"]) for average in document["averages"]] == [
        ("no_adapt", 1),
        ("shift", 1),
    ]
    assert all(list(average["domains"]) == ["snow"] for average in document["averages"])
    before = modification_times(tmp_path / "out")
    assert len(before) == 2
    assert [(row["domain"], row["label"]) for row in report_rows(tmp_path / "out")] == [
        ("snow", "no_adapt"),
        ("snow", "shift"),
    ]
    (source,), _ = collect_results([tmp_path / "out"])
    assert not source.results.complete

    image.write_bytes((image.parent.parent / "class04" / "04.png").read_bytes())
    result = run()
    assert (result.returncode, result.stderr) == (0, f"4 cells, 2 of them finished in {tmp_path / 'out'}\n")
    assert [row["domain"] for row in report_rows(tmp_path / "out")] == ["fog", "fog", "snow", "snow"]
    (source,), _ = collect_results([tmp_path / "out"])
    assert source.results.complete
    assert len(modification_times(tmp_path / "out")) == 4
    assert before.items() <= modification_times(tmp_path / "out").items()
    with (tmp_path / "out" / "sweep.csv").open(newline="") as stream:
        assert [(row["domain"], row["method"]) for row in csv.DictReader(stream)] == [
            ("fog", "no_adapt"),
            ("fog", "shift"),
            ("snow", "no_adapt"),
            ("snow", "shift"),
        ]


def report_rows(folder: Path) -> list[dict[str, str]]:
    """Return the rows of `fozo report` on a sweep's folder, which are those of the results in it."""
    reports = []
    for path in (folder, folder / "results"):
        result = CliRunner().invoke(cli, ["report", str(path), "--csv", str(folder.parent / "report.csv")])
        assert (result.exit_code, result.output) == (0, f"Wrote {folder.parent / 'report.csv'}\n")
        reports.append(list(csv.DictReader(io.StringIO((folder.parent / "report.csv").read_text()))))
    assert reports[0] == reports[1]
    return reports[0]


def test_a_sweep_of_two_graphs_is_a_report_of_two_files(
    int8_bundle_path: Path, pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = ["sweep", int8_bundle_path, "--generate-from", pictures, "--corruptions", "contrast"]
    arguments += ["--precision", "fp32", "--precision", "int8", "-m", "no_adapt", "-m", "shift"]
    arguments += ["--seeds", "2", "--out", out, "--quiet"]
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    assert result.output.count("statistically indistinguishable from no_adapt") == 2
    assert result.output.endswith(f"All cells: {out / 'sweep.csv'}\nFor fozo report: {out / 'results'}\n")
    (out / "notes.json").write_text("{}")
    sources, passed = collect_results([out])
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
            for label, result in run.domains[0].methods.items():
                precision = source.results.bundle["precision"]
                assert result.tally.top1 == correct[precision, run.seed, label]


def _correct(document: Any) -> int:
    ((result,),) = ([*domain["methods"].values()] for domain in document["runs"][0]["domains"])
    return int(result["correct"])


def test_a_sweep_that_was_killed_has_no_results_yet(jobs: Callable[..., list[Job]], tmp_path: Path) -> None:
    Sweep.open(tmp_path, jobs())
    with pytest.raises(InputError, match=f"{tmp_path} is a sweep without results.*same command fozo sweep"):
        collect_results([tmp_path])


def start_sweep(bundle: Path, pictures: Path, out: Path) -> subprocess.Popen[str]:
    """Start a sweep of 30 cells, and return it when one cell is finished."""
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
    while not list((out / "cells").glob("*.json")) or len(child_processes(process.pid)) < 2:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)
    return process


@needs_proc
def test_interrupt(bundle_path: Path, pictures: Path, tmp_path: Path) -> None:
    process = start_sweep(bundle_path, pictures, tmp_path / "out")
    watchdog = threading.Timer(100, process.kill)
    watchdog.start()
    at_work = child_processes(process.pid)
    before = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
    output, errors = process.communicate()
    watchdog.cancel()
    assert time.monotonic() - before < 10
    assert (process.returncode, errors.strip()) == (130, "Interrupted.")
    assert has_ended(at_work, 5)
    finished = modification_times(tmp_path / "out")
    assert 0 < len(finished) < 30
    assert all(name.endswith(".json") and not name.startswith(".") for name in finished)
    assert f"{len(finished)} of 30 cells: {tmp_path / 'out' / 'sweep.csv'}" in output
    (source,), _ = collect_results([tmp_path / "out"])
    assert sum(len(run.domains) for run in source.results.runs) == len(finished)
    assert not source.results.complete
    assert len((tmp_path / "out" / "sweep.csv").read_text().splitlines()) == 1 + len(finished)


@needs_proc
def test_without_the_driver_no_process_goes_on(bundle_path: Path, pictures: Path, tmp_path: Path) -> None:
    process = start_sweep(bundle_path, pictures, tmp_path / "out")
    at_work = child_processes(process.pid)
    process.kill()
    process.communicate()
    assert has_ended(at_work, 20)


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
