"""`fozo bench`: matrix, rounds and ratios with hand-made samples, and real processes on small bundles."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from command_doubles import start_process
from doubles import run_fozo
from fozo.cli import cli
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.errors import BundleError, InputError
from fozo.engine.runtime.arrangement import load_arrangement
from fozo.engine.runtime.tuning import list_arrangements
from fozo.eval.bench import backends, benchmark, samples
from fozo.eval.bench.backends import Backend, Cell, list_cells
from fozo.eval.bench.bench_document import to_document
from fozo.eval.bench.bench_table import format_table
from fozo.eval.bench.benchmark import Benchmark, prepare
from fozo.eval.bench.samples import BenchError, Measurement, Sample, take_sample, time_ratio
from fozo.eval.bench.worker import time_steps

FP32, INT8 = Backend("fp32"), Backend("int8")
WHOLE, PARTS = Backend("fp32", "torch"), Backend("bf16", "torch", 8)
QUICK: list[str] = ["--batch-size", "2", "--workers", "1", "--samples", "1", "--min-seconds", "0", "--quiet"]
OPTIONS: dict[str, Any] = {
    "methods": ("no_adapt", "fozo"),
    "precisions": (),
    "batch_sizes": (1, 2),
    "threads": (1,),
    "providers": ("cpu",),
    "with_torch": False,
    "samples": 2,
    "min_seconds": 0.0,
}


def sample(seconds: float, peak: float = 100.0) -> Sample:
    return Sample(seconds, 5, 2, peak, 0.2, 0.3)


@pytest.fixture
def quick(bundle_path: Path) -> Benchmark:
    return prepare(bundle_path, **OPTIONS)


# --- matrix and statistics, without a process ---


def test_labels() -> None:
    assert FP32.label == "fp32"
    assert Backend("int8", "openvino").label == "int8 openvino"
    assert WHOLE.label == "torch fp32"
    assert PARTS.label == "torch bf16, 8 at a time"
    assert Cell(PARTS, "fozo", 64, 1).describe() == "torch bf16, 8 at a time fozo, batch 64, 1 thread"


def test_matrix_puts_what_is_compared_side_by_side() -> None:
    cells = list_cells([FP32, INT8], ["no_adapt", "fozo"], [1, 8], [1, 2])
    assert len(cells) == len(set(cells)) == 16
    first = [(c.backend, c.method) for c in cells[:4]]
    assert first == [(FP32, "no_adapt"), (FP32, "fozo"), (INT8, "no_adapt"), (INT8, "fozo")]
    assert [(c.batch_size, c.threads) for c in cells[::4]] == [(1, 1), (1, 2), (8, 1), (8, 2)]


def test_methods_may_have_options_and_a_label(bundle_path: Path) -> None:
    spec = "small=fozo:epsilon=0.2,epsilon_min=0.1"
    benchmark = prepare(bundle_path, **{**OPTIONS, "methods": ["no_adapt", spec, spec]})
    assert [m.cell.method for m in benchmark.measurements[:2]] == ["no_adapt", spec]
    assert len(benchmark.measurements) == 4  # two methods, two batch sizes
    cell = benchmark.measurements[1].cell
    assert cell.describe() == "fp32 small, batch 1, 1 thread"
    assert take_sample(benchmark.bundle, cell, 0).steps == 1
    with pytest.raises(InputError, match="the method no_adapt is given twice"):
        prepare(bundle_path, **{**OPTIONS, "methods": ["no_adapt", "no_adapt=shift"]})


def test_torch_runs_residual_networks_without_fozo(bundle_path: Path) -> None:
    eager = pytest.importorskip("fozo.export.eager", reason="needs PyTorch and timm")
    bundle = Bundle.open(bundle_path)
    manifest = replace(bundle.manifest, model="resnet10t", classes=7, tunables={"norms": (1, 2, 2, 8)})
    residual = replace(bundle, manifest=manifest)
    images = np.zeros((2, 64, 64, 3), np.uint8)
    options: dict[str, Any] = {"precision": "fp32", "threads": 1, "chunk_size": None}
    assert eager.make_step(residual, images, method="no_adapt", **options)().shape == (2, 7)
    with pytest.raises(InputError, match="resnet10t has no prompts"):
        eager.make_step(residual, images, method="fozo", **options)


def test_matrix_leaves_out_what_torch_does_not_have() -> None:
    cells = list_cells([FP32, WHOLE, PARTS], ["no_adapt", "shift"], [8, 9], [1])
    assert [(c.backend, c.method, c.batch_size) for c in cells if c.backend != FP32] == [
        (WHOLE, "no_adapt", 8),
        (WHOLE, "no_adapt", 9),
        (PARTS, "no_adapt", 9),
    ]


def test_ratio_is_the_median_of_the_rounds_ratios() -> None:
    base = [sample(1.0), sample(10.0), sample(2.0)]
    # 3, 2 and 2.5: their median is 2.5, where the ratio of the medians would be 5 / 2 of other rounds.
    assert time_ratio([sample(3.0), sample(20.0), sample(5.0)], base) == 2.5
    assert time_ratio([sample(4.0), sample(1.0), sample(6.0)], base) == 3.0  # 4, 0.1, 3
    assert time_ratio([sample(3.0)], base) == 3.0
    assert time_ratio([], base) is None


def test_ratios_of_a_benchmark(quick: Benchmark) -> None:
    seconds = {(FP32, "no_adapt"): 1.0, (FP32, "fozo"): 2.0, (INT8, "no_adapt"): 0.5, (INT8, "fozo"): 1.5}
    quick.backends = [FP32, INT8]
    quick.measurements = [Measurement(Cell(c, m, 4, 1), [sample(s)]) for (c, m), s in seconds.items()]
    assert [quick.ratios(m) for m in quick.measurements] == [(1, 1), (2, 1), (1, 0.5), (3, 0.75)]
    quick.measurements.pop(0)
    assert quick.ratios(quick.measurements[0]) == (None, 1)
    assert quick.ratios(quick.measurements[1]) == (1, None)


def test_rounds_visit_all_cells_in_turn(quick: Benchmark) -> None:
    visited: list[Cell] = []
    counted: list[int] = []

    def take(bundle: Bundle, cell: Cell, min_seconds: float) -> Sample:
        visited.append(cell)
        return sample(len(visited), peak=50 * len(visited))

    quick.run(counted.append, take)
    cells = [m.cell for m in quick.measurements]
    assert visited == cells * 2
    assert sum(counted) == quick.sample_count == 8
    assert quick.complete
    first = quick.measurements[0]
    assert first.median("seconds") == 3  # of 1 and 5
    assert first.median("peak_mb") == 150
    assert quick.measurements[2].images_per_second == 2 / 5  # batches of 2 in 3 and 7 seconds


def test_a_cell_that_fails_lets_the_others_go_on(quick: Benchmark) -> None:
    visited: list[Cell] = []

    def take(bundle: Bundle, cell: Cell, min_seconds: float) -> Sample:
        visited.append(cell)
        if cell.method == "fozo" and cell.batch_size == 1:
            raise BenchError("out of luck")
        return sample(1.0)

    quick.run(sample=take)
    assert len(visited) == 7  # once, and not again in the second round
    assert [m.failure for m in quick.measurements] == [None, "out of luck", None, None]
    assert quick.failures == ["fp32 fozo, batch 1, 1 thread: out of luck"]
    assert quick.complete
    assert "failed: out of luck" in format_table(quick)


def test_an_interrupt_keeps_what_was_measured(quick: Benchmark) -> None:
    def take(bundle: Bundle, cell: Cell, min_seconds: float) -> Sample:
        if cell.batch_size == 2:
            raise KeyboardInterrupt
        return sample(1.0)

    assert not quick.started
    with pytest.raises(KeyboardInterrupt):
        quick.run(sample=take)
    document = to_document(quick)
    assert quick.started
    assert document["complete"] is False
    assert [len(cell["samples"]) for cell in document["cells"]] == [1, 1, 0, 0]
    assert document["cells"][2]["seconds"] is None
    assert format_table(quick).splitlines()[-1].count("–") == 8


def test_timed_makes_one_step_at_least() -> None:
    steps: list[int] = []
    assert len(time_steps(lambda: steps.append(1), 0.0)) == len(steps) == 1


# --- what is refused before anything is measured ---


@pytest.mark.parametrize(
    ("option", "value", "error", "words"),
    [
        ("methods", ("nonsense",), InputError, "no method 'nonsense'"),
        ("precisions", ("int4",), BundleError, "no int4 graph"),
    ],
)
def test_bad_input(bundle_path: Path, option: str, value: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        prepare(bundle_path, **{**OPTIONS, option: value})


def test_missing_torch(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"torch and timm cannot be found; .*fozo\[export\]"):
        prepare(bundle_path, **{**OPTIONS, "with_torch": True})


def test_defaults_and_what_is_given_twice(bundle_path: Path) -> None:
    twice = {"methods": ("fozo", "fozo"), "batch_sizes": (4, 4), "threads": ()}
    cells = [m.cell for m in prepare(bundle_path, **{**OPTIONS, **twice}).measurements]
    assert {(c.backend, c.method, c.batch_size) for c in cells} == {(FP32, "fozo", 4)}
    assert [c.threads for c in cells] == list(dict.fromkeys((1, benchmark.count_cpus())))


# --- real processes ---


def test_a_sample(bundle_path: Path) -> None:
    taken = take_sample(Bundle.open(bundle_path), Cell(FP32, "fozo", 3, 1), 0.0)
    assert taken.steps == 1
    assert taken.seconds > 0
    assert 0 < taken.load_seconds < taken.first_answer_seconds
    assert 10 < taken.peak_mb < 2000


def test_fozo_without_source_statistics(make_bundle: Callable[..., Bundle], tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "sourceless", source=False)
    assert take_sample(bundle, Cell(FP32, "fozo", 1, 1), 0.0).steps == 1
    assert Bundle.open(bundle.path).manifest.source == {}


def test_a_process_that_fails_says_why(bundle_path: Path) -> None:
    with pytest.raises(BenchError, match=r"ended with code 1: .*no int8 graph") as caught:
        take_sample(Bundle.open(bundle_path), Cell(INT8, "fozo", 1, 1), 0.0)
    assert len(str(caught.value).splitlines()) == 1


def test_a_process_that_is_killed(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = subprocess.CompletedProcess([], -9, "", "")
    monkeypatch.setattr(samples.subprocess, "run", lambda *arguments, **options: done)
    with pytest.raises(BenchError, match="code -9: it printed nothing"):
        take_sample(Bundle.open(bundle_path), Cell(FP32, "fozo", 1, 1), 0.0)


@pytest.mark.parametrize("answer", ["", "hello", "[]", '{"seconds": 1}'])
def test_an_answer_that_cannot_be_read(
    bundle_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    done = subprocess.CompletedProcess([], 0, answer, "")
    monkeypatch.setattr(samples.subprocess, "run", lambda *arguments, **options: done)
    with pytest.raises(BenchError, match="cannot be read"):
        take_sample(Bundle.open(bundle_path), Cell(FP32, "fozo", 1, 1), 0.0)


@pytest.mark.parametrize(
    "cell",
    [Cell(WHOLE, "no_adapt", 2, 1), Cell(Backend("bf16", "torch", 1), "fozo", 2, 1)],
    ids=lambda cell: cell.backend.label,
)
def test_torch(demo_bundle: Bundle, cell: Cell) -> None:
    assert take_sample(demo_bundle, cell, 0.0).seconds > 0


@pytest.fixture(scope="module")
def demo_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    pytest.importorskip("torch", reason="the bundle is exported from PyTorch")
    from fozo.export.exporter import export_model
    from fozo.export.model_request import Request

    return export_model(Request("fozo_demo_vit"), tmp_path_factory.mktemp("demo") / "bundle").bundle


# --- the command ---


def test_command(bundle_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    result = CliRunner().invoke(cli, ["bench", str(bundle_path), *QUICK, "--out", str(out)])
    assert result.exit_code == 0, result.output
    document = json.loads(out.read_text(encoding="utf-8"))
    assert [path.name for path in tmp_path.iterdir()] == ["bench.json"]
    assert document["schema"] == 3
    assert document["complete"] is True
    assert document["bundle"]["model"] == Bundle.open(bundle_path).manifest.model
    assert document["bundle"]["graphs"]["fp32"]["mb"] == (bundle_path / "model.onnx").stat().st_size / 1e6
    assert set(document["machine"]) == {"system", "cpu", "cpus", "load_before", "load_after"}
    assert set(document["versions"]) >= {"fozo", "python", "onnxruntime", "numpy"}
    assert [cell["method"] for cell in document["cells"]] == ["no_adapt", "fozo"]
    plain, adapted = document["cells"]
    for cell in (plain, adapted):
        (only,) = cell["samples"]
        assert set(only) == set(asdict(sample(1.0)))
        assert cell["images_per_second"] == pytest.approx(2 / only["seconds"])
        assert (cell["batch_size"], cell["threads"], cell["failure"]) == (2, 1, None)
        assert cell["time_by_no_adapt"] == pytest.approx(cell["seconds"] / plain["seconds"])
    assert "batch 2, 1 thread " in result.stdout
    assert f"All samples: {out}" in result.stdout
    rows = [line.split() for line in result.stdout.splitlines() if line.startswith("fp32")]
    assert [row[:2] for row in rows] == [["fp32", "no_adapt"], ["fp32", "fozo"]]
    assert all(len(row) == 10 for row in rows)


def test_json_is_all_there_is_on_standard_output(bundle_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    arguments = ["bench", str(bundle_path), *QUICK, "-m", "no_adapt", "--json", "--out", str(out)]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == json.loads(out.read_text(encoding="utf-8"))


def test_missing_bundle(tmp_path: Path) -> None:
    arguments = ["bench", str(tmp_path / "none"), "--out", str(tmp_path / "bench.json")]
    result = CliRunner().invoke(cli, arguments)
    assert isinstance(result.exception, BundleError)
    assert "no bundle at" in str(result.exception)
    assert list(tmp_path.iterdir()) == []


def test_out_is_tried_first(bundle_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "no" / "bench.json"
    result = CliRunner().invoke(cli, ["bench", str(bundle_path), *QUICK, "--out", str(out)])
    assert "cannot write" in str(result.exception)


def test_failed_cells_end_in_an_error(bundle_path: Path, tmp_path: Path) -> None:
    """PyTorch has no model of the name that these bundles have."""
    out = tmp_path / "bench.json"
    result = run(bundle_path, out, "--torch", "-m", "no_adapt")
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: 2 of 3 cells failed; torch fp32 no_adapt, batch 2, 1 thread: ")
    assert "timm" in line
    cells = json.loads(out.read_text(encoding="utf-8"))["cells"]
    assert [bool(cell["failure"]) for cell in cells] == [False, True, True]
    assert result.stdout.count("failed: ") == 2
    assert cells[0]["samples"]


def test_tune(bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOZO_CACHE_DIR", str(tmp_path))
    arguments = ["bench", str(bundle_path), "--tune", "--samples", "1", "--batch-size", "4", "--quiet"]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    title, _, *rows, last = result.stdout.splitlines()
    assert "fp32 on cpu, batch 4" in title
    assert len(rows) == len(list_arrangements())
    best = load_arrangement(Bundle.open(bundle_path).graph_sha256("fp32"), "cpu")
    assert best is not None
    assert rows[0].split()[:2] == [str(best.workers), str(best.micro_batch)]
    assert rows[0].split()[3] == "1.00"
    assert last.endswith(f"in {tmp_path / 'arrangements.json'}")


def test_tune_refuses_options_that_would_do_nothing(bundle_path: Path) -> None:
    arguments = ["bench", str(bundle_path), "--tune", "--torch", "-m", "fozo"]
    result = CliRunner().invoke(cli, arguments)
    assert isinstance(result.exception, InputError)
    assert str(result.exception).endswith("leave out --method, --torch")


def run(bundle: Path, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return run_fozo(*command(bundle, out, *options))


def command(bundle: Path, out: Path, *options: str) -> list[str]:
    return ["bench", str(bundle), *QUICK, "--out", str(out), *options]


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_interrupt(bundle_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    program = (
        # The third sample never ends, and says so.
        "from fozo.eval.bench import benchmark; from fozo.cli import main; import time\n"
        "take, taken = benchmark.take_sample, []\n"
        "def slow(*arguments):\n"
        "    taken.append(1)\n"
        "    if len(taken) == 3: print('slow', flush=True); time.sleep(100)\n"
        "    return take(*arguments)\n"
        "benchmark.take_sample = slow; main()"
    )
    arguments = [sys.executable, "-c", program, *command(bundle_path, out, "--samples", "5")]
    with start_process(arguments) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "slow\n"
        process.send_signal(signal.SIGINT)
        printed, errors = process.communicate()
    assert process.returncode == 130, errors
    assert errors.splitlines()[-1] == "Interrupted."
    assert "Traceback" not in errors
    assert f"Incomplete: what was measured so far: {out}" in printed
    document = json.loads(out.read_text(encoding="utf-8"))
    assert document["complete"] is False
    assert [len(cell["samples"]) for cell in document["cells"]] == [1, 1]
