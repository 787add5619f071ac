"""The command line from outside: real processes, real files, and one clear line for every bad input."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import struct
import subprocess
import threading
import time
import zlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import fozo
import numpy as np
import pytest
from doubles import accept_interrupts, child_environment, fozo_command, run_fozo
from fozo.commands.option_types import Blocks
from fozo.eval.datasets.corruption_names import IMAGENET_C
from PIL import Image

pytest.importorskip("torch", reason="the bundle is exported from PyTorch")
pytest.importorskip("sklearn", reason="the demonstration's images come with scikit-learn")

ENVIRONMENT = child_environment(OMP_NUM_THREADS="2", PYTHONWARNINGS="default")
QUICK = ["--dataset", "demo", "--subset", "128", "--corruptions", "gaussian_noise,contrast,clean"]


def fozo_(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return run_fozo(*arguments, env=ENVIRONMENT, cwd=cwd)


def succeeds(*arguments: object, cwd: Path | None = None) -> str:
    result = fozo_(*arguments, cwd=cwd)
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    assert "Warning" not in result.stderr
    return result.stdout


def fails(*arguments: object, cwd: Path | None = None, partial: bool = False) -> str:
    """The message of a run that must fail with one line on standard error."""
    result = fozo_(*arguments, cwd=cwd)
    assert result.returncode in (1, 2), (result.returncode, result.stdout, result.stderr)
    assert "Traceback" not in result.stderr
    lines = result.stderr.splitlines()
    if lines and lines[0].startswith("Usage:"):
        lines = lines[-1:]  # click: usage, a hint, an empty line, and the error
    if partial:
        assert "Incomplete: what was measured so far is in" in result.stdout
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("Error: "), result.stderr
    return lines[0]


def read(path: Path) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    return content


def counts(document: dict[str, Any]) -> dict[str, Any]:
    """The raw counts of every domain and method, which must not depend on how the work was split."""
    return {
        domain["name"]: {
            label: (part["images"], part["correct"], part["correct_top5"], part["bins"]["images"])
            for label, part in domain["methods"].items()
        }
        for domain in document["runs"][0]["domains"]
    }


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("cli")
    return folder / "bundle", succeeds("export", "--model", "fozo_demo_vit", "--no-int8", cwd=folder)


@pytest.fixture(scope="module")
def bundle(exported: tuple[Path, str]) -> Path:
    return exported[0]


@pytest.fixture(scope="module")
def sourceless(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same bundle as if its source statistics had never been computed."""
    copy = tmp_path_factory.mktemp("sourceless") / "bundle"
    shutil.copytree(bundle, copy)
    raw = json.loads((copy / "bundle.json").read_bytes())
    name = raw["source"].pop("fp32")["file"]
    raw["files"].pop(name)
    (copy / name).unlink()
    (copy / "bundle.json").write_text(json.dumps(raw))
    return copy


@pytest.fixture(scope="module")
def adapted(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("adapted") / "results.json"
    return out, succeeds("adapt", bundle, *QUICK, "--out", out)


def digits(folder: Path, count: int = 20) -> Path:
    """A folder of classes with grey noise, enough to stream."""
    generator = np.random.default_rng(0)
    for i in range(count):
        path = folder / str(i % 10) / f"{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (40, 36, 3), dtype=np.uint8)).save(path)
    return folder


def bomb(path: Path) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    )


# --- help ---


def test_version() -> None:
    assert succeeds("--version").strip().endswith(fozo.__version__)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ([], ["export", "source", "adapt", "inspect", "methods"]),
        (
            ["export"],
            ["--model", "--weights", "--source", "--classes", "--out", "--overwrite", "--image-size"],
        ),
        (["source"], ["--source-images", "--seed", "BUNDLE", "FOLDER"]),
        (
            ["adapt"],
            [
                "--dataset",
                "--data",
                "--method",
                "--setting",
                "--severities",
                "--corruptions",
                "--subset",
                "--batch-size",
                "--seed",
                "--workers",
                "--micro-batch",
                "--out",
                "--classes",
                "--quiet",
            ],
        ),
        (["inspect"], ["--json"]),
        (["methods"], ["--json"]),
    ],
)
def test_help(command: list[str], words: list[str]) -> None:
    text = succeeds(*command, "--help")
    assert text == succeeds(*command, "-h")
    for word in words:
        assert word in text


def test_methods() -> None:
    text = succeeds("methods")
    for name in fozo.METHODS:
        assert re.search(rf"^{name}\b", text, re.MULTILINE)
    details = succeeds("methods", "fozo")
    for option in ("samples", "epsilon", "shift", "output"):
        assert re.search(rf"^\s+{option} = ", details, re.MULTILINE)
    listed = json.loads(succeeds("methods", "fozo", "--json"))
    assert {option["name"] for option in listed["fozo"]} >= {"samples", "epsilon"}
    assert "nonsense" in fails("methods", "nonsense")


# --- export and inspect ---


def test_export_of_the_demo_model(exported: tuple[Path, str]) -> None:
    path, text = exported
    assert "Verified against PyTorch" in text
    assert "fozo_demo_vit" in text
    assert "training images" in text
    names = {entry.name for entry in path.iterdir()}
    assert {"bundle.json", "model.onnx", "head.npz"} < names
    assert len(names) == 4
    assert [entry.name for entry in path.parent.iterdir()] == ["bundle"]


def test_inspect(bundle: Path) -> None:
    text = succeeds("inspect", bundle)
    assert text == succeeds("inspect", cwd=bundle.parent).replace("Bundle bundle:", f"Bundle {bundle}:")
    for word in ("fozo_demo_vit", "6 blocks of width 64", "10 classes", "model.onnx", "training images"):
        assert word in text
    assert json.loads(succeeds("inspect", bundle, "--json")) == json.loads(
        (bundle / "bundle.json").read_text()
    )


def test_export_refuses_an_existing_bundle(bundle: Path) -> None:
    before = (bundle / "bundle.json").read_bytes()
    assert "--overwrite" in fails("export", "--model", "fozo_demo_vit", "--out", bundle)
    assert (bundle / "bundle.json").read_bytes() == before


def test_export_with_bad_input(tmp_path: Path) -> None:
    out = ["--out", tmp_path / "bundle"]
    (tmp_path / "text.pt").write_text("This is not a file of weights")
    (tmp_path / "few").mkdir()
    demo = ["export", "--model", "fozo_demo_vit", *out]
    assert "no model" in fails("export", "--model", "vit_nonsense", *out)
    assert "text.pt" in fails(*demo, "--weights", tmp_path / "text.pt")
    assert "few" in fails(*demo, "--source", tmp_path / "few")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["few", "text.pt"]


def test_source_statistics(sourceless: Path, tmp_path: Path) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(sourceless, copy)
    assert "none" in succeeds("inspect", copy)
    images = digits(tmp_path / "images", 40)
    assert "at least 32 images" in fails("source", copy, digits(tmp_path / "few", 31))
    assert "at least 32 images" in fails("source", copy, images, "--source-images", 31)
    before = (copy / "bundle.json").read_bytes()
    bad = images / "3" / "013.png"
    content = bad.read_bytes()
    bad.write_bytes(content[:200])
    assert "013.png" in fails("source", copy, images)
    assert (copy / "bundle.json").read_bytes() == before
    bad.write_bytes(content)
    assert "40 of the 40 images" in succeeds("source", copy, images)
    assert "35 of the 40 images" in succeeds("source", copy, images, "--source-images", 35, "--seed", 3)
    assert len(list(copy.glob("source-*"))) == 1
    succeeds("inspect", copy)


# --- adapt ---


def test_results(adapted: tuple[Path, str], bundle: Path) -> None:
    out, text = adapted
    document = read(out)
    assert document["schema"] == 4
    assert document["complete"] is True
    assert document["protocol"] == {
        "dataset": "demo (generated corruptions)",
        "setting": "reset",
        "severities": [5],
        "subset": "128-seeded",
        "seeds": [2000],
        "batch_size": 64,
        "classes": "all",
        "rounds": 1,
        "concentration": None,
    }
    assert document["bundle"]["model"] == "fozo_demo_vit"
    assert list(document["methods"]) == ["no_adapt", "shift", "fozo", "pizo"]
    (run,) = document["runs"]
    document["domains"] = run["domains"]
    assert (run["seed"], run["complete"]) == (2000, True)
    assert [domain["name"] for domain in document["domains"]] == ["gaussian_noise", "contrast", "clean"]
    assert [domain["generated"] for domain in document["domains"]] == [True, True, False]
    for domain in document["domains"]:
        assert domain["complete"] is True
        assert domain["images"] == 128
        for label, part in domain["methods"].items():
            bins = part["bins"]
            assert part["images"] == sum(bins["images"]) == 128
            assert part["correct"] == sum(bins["correct"]) <= part["correct_top5"] <= 128
            assert part["accuracy"] == part["correct"] / 128
            assert part["top5_accuracy"] == part["correct_top5"] / 128
            error = np.abs(np.array(bins["confidence"]) - np.array(bins["correct"])).sum() / 128
            assert part["ece"] == pytest.approx(error)
            assert part["batches"] == 2
            assert part["forwards"] == (4 if label in ("fozo", "pizo") else 2)
            assert part["guarded"] == 0
            assert part["peak_bytes"] > 0
    for label, means in document["average"].items():
        corrupted = [domain for domain in document["domains"] if domain["name"] != "clean"]
        assert len(corrupted) == 2
        accuracies = [domain["methods"][label]["accuracy"] for domain in corrupted]
        assert means["accuracy"] == pytest.approx(np.mean(accuracies))
    assert document["domains"][2]["methods"]["no_adapt"]["accuracy"] > 0.95
    rows = [line for line in text.splitlines() if re.match(r"(gaussian_noise|contrast|clean) ", line)]
    assert len(rows) == 3
    for row, domain in zip(rows, document["domains"], strict=True):
        shown = [float(value) for value in re.findall(r"(\d+\.\d)", row)]
        expected = [100 * part["accuracy"] for part in domain["methods"].values()]
        assert shown == pytest.approx(expected, abs=0.051)
    assert "images/s" in text
    assert str(out) in text
    assert sorted(path.name for path in out.parent.iterdir()) == sorted(
        ["results.json", *(["results.png"] if find_spec("matplotlib") else [])]
    )
    if find_spec("matplotlib"):
        with Image.open(out.with_suffix(".png")) as picture:
            assert picture.format == "PNG"
            assert min(picture.size) > 300


def test_results_are_repeatable_and_independent_of_the_split(
    adapted: tuple[Path, str], bundle: Path, tmp_path: Path
) -> None:
    expected = counts(read(adapted[0]))
    for split in (["--micro-batch", 7, "--workers", 1], ["--micro-batch", 64, "--workers", 3]):
        out = tmp_path / "again.json"
        succeeds("adapt", bundle, *QUICK, "--out", out, "--quiet", *split)
        assert counts(read(out)) == expected
        assert read(out)["engine"] == {"provider": "cpu", "workers": split[3], "micro_batch": split[1]}


def test_settings_differ_after_the_first_domain(
    adapted: tuple[Path, str], bundle: Path, tmp_path: Path
) -> None:
    out = tmp_path / "continual.json"
    succeeds("adapt", bundle, *QUICK, "--out", out, "--setting", "continual")
    reset, continual = read(adapted[0]), read(out)
    assert continual["protocol"]["setting"] == "continual"

    def confidences(document: dict[str, Any], domain: int, label: str) -> Any:
        return document["runs"][0]["domains"][domain]["methods"][label]["bins"]["confidence"]

    for label in ("shift", "fozo", "pizo"):
        assert confidences(reset, 0, label) == pytest.approx(confidences(continual, 0, label))
        assert confidences(reset, 1, label) != pytest.approx(confidences(continual, 1, label))
    for domain in range(3):
        assert confidences(reset, domain, "no_adapt") == pytest.approx(
            confidences(continual, domain, "no_adapt")
        )


def test_options_and_folders(bundle: Path, tmp_path: Path) -> None:
    data, out = digits(tmp_path / "data"), tmp_path / "out.json"
    succeeds(
        "adapt", bundle, "--dataset", "imagefolder", "--data", data, "--out", out, "--batch-size", 8,
        "-m", "fozo:samples=2,shift=origin", "-m", "no_adapt", "--seed", 1, "--classes", "present",
    )  # fmt: skip
    document = read(out)
    assert list(document["methods"]) == ["fozo:samples=2,shift=origin", "no_adapt"]
    options = document["methods"]["fozo:samples=2,shift=origin"]["options"]
    assert (options["samples"], options["shift"]) == (2, "origin")
    (domain,) = document["runs"][0]["domains"]
    assert domain["methods"]["fozo:samples=2,shift=origin"]["forwards"] == 12
    assert document["protocol"]["severities"] == []
    succeeds(
        "adapt", bundle, "--generate-from", data, "--corruptions", "contrast", "--severities", 1,
        "--out", out, "-m", "no_adapt",
    )  # fmt: skip
    document = read(out)
    assert "not the official" in document["protocol"]["dataset"]
    assert document["runs"][0]["domains"][0]["generated"] is True
    assert "--frost-textures" in fails("adapt", bundle, "--data", data, "--frost-textures", data)
    succeeds("adapt", bundle, "--generate-from", data, "--severities", 1, "--out", out, "-m", "no_adapt")
    document = read(out)
    assert "generated corruptions without frost" in document["protocol"]["dataset"]
    assert [d["name"] for d in document["runs"][0]["domains"]] == [c for c in IMAGENET_C if c != "frost"] + [
        "clean"
    ]


def test_seeds_and_severities(bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    text = succeeds(
        "adapt", bundle, "--dataset", "demo", "--subset", 16, "--corruptions", "contrast", "--out", out,
        "-m", "no_adapt", "-m", "shift", "--severities", "1,3-4", "--seeds", 2, "--seed", 5,
    )  # fmt: skip
    document = read(out)
    assert document["protocol"]["severities"] == [1, 3, 4]
    assert [run["seed"] for run in document["runs"]] == document["protocol"]["seeds"] == [5, 6]
    for run in document["runs"]:
        assert [domain["severity"] for domain in run["domains"]] == [1, 3, 4]
    hashes = {run["domains"][0]["ids_sha256"] for run in document["runs"]}
    assert len(hashes) == 2, "both seeds chose the same images"
    assert len(re.findall(r"^contrast [134] ", text, re.M)) == 6
    assert "seeds 5+6" in text and "±" in text
    if find_spec("matplotlib"):
        assert out.with_suffix(".png").exists()


def test_an_interrupted_run_is_not_forgotten(bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    progress = out.with_suffix(".progress.npz")
    progress.write_bytes(b"nonsense")
    options = ["adapt", bundle, *QUICK, "-m", "no_adapt", "--out", out]
    assert "not readable progress" in fails(*options, "--resume")
    assert "--overwrite" in fails(*options)
    assert progress.read_bytes() == b"nonsense"
    succeeds(*options, "--overwrite")
    assert not progress.exists()


def test_a_complete_run_is_not_done_again(bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    options = ["adapt", bundle, *QUICK, "-m", "no_adapt", "--out", out, "--resume"]
    assert "starting anew" in succeeds(*options)
    before = out.read_bytes()
    assert "is complete already" in succeeds(*options)
    assert out.read_bytes() == before
    assert "not of this run" in fails(*options, "--batch-size", 32)
    assert out.read_bytes() == before


@pytest.mark.skipif(os.name != "posix", reason="sends SIGTERM")
def test_sigterm_saves_what_ctrl_c_saves(bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    arguments = [
        "adapt",
        bundle,
        "--dataset",
        "demo",
        "--batch-size",
        1,
        "-m",
        "fozo:samples=8",
        "--out",
        out,
    ]
    with subprocess.Popen(
        fozo_command(*arguments),
        env={**ENVIRONMENT, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        while "top-1 accuracy" not in (line := process.stdout.readline()):
            assert line
        time.sleep(2)
        process.terminate()
        process.communicate(timeout=60)
    assert process.returncode == 143
    assert read(out)["complete"] is False
    assert out.with_suffix(".progress.npz").exists()


def test_default_bundle_and_output(bundle: Path) -> None:
    folder = bundle.parent
    try:
        succeeds(
            "adapt",
            "--dataset",
            "demo",
            "--subset",
            8,
            "--corruptions",
            "clean",
            "-m",
            "no_adapt",
            cwd=folder,
        )
        assert read(folder / "results.json")["complete"] is True
    finally:
        for name in ("results.json", "results.png"):
            (folder / name).unlink(missing_ok=True)


# --- bad input ---


def test_bundles_that_cannot_be_used(bundle: Path, tmp_path: Path) -> None:
    out = ["--dataset", "demo", "--out", tmp_path / "results.json"]
    assert "no bundle at" in fails("adapt", tmp_path / "nowhere", *out)
    assert "no bundle at" in fails("adapt", tmp_path, *out)
    assert "no bundle at" in fails("inspect", cwd=tmp_path)
    assert "no bundle at" in fails("source", tmp_path / "nowhere", digits(tmp_path / "images", 32))
    model, head, raw = ((bundle / name).read_bytes() for name in ("model.onnx", "head.npz", "bundle.json"))
    for name, content in (
        ("model.onnx", model[:-100]),
        ("head.npz", head[:-1] + b"\1"),
        ("bundle.json", raw[: len(raw) // 2]),
        ("bundle.json", raw.replace(b'"schema": 2', b'"schema": 3')),
        ("bundle.json", raw.replace(b'"layers": 6', b'"layers": 7')),
    ):
        copy = tmp_path / "tampered"
        shutil.copytree(bundle, copy)
        (copy / name).write_bytes(content)
        assert str(copy) in fails("adapt", copy, *out)
        if b'"layers": 7' not in content:  # only the graph can tell
            assert str(copy) in fails("inspect", copy)
        shutil.rmtree(copy)
    assert not (tmp_path / "results.json").exists()


def test_manifest_of_the_wrong_kind(bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(bundle, copy)
    raw = json.loads((copy / "bundle.json").read_bytes())
    changes: list[dict[str, Any]] = [{"graphs": []}, {"files": None}, {"layers": "six"}, {"source": 1}]
    for change in changes:
        (copy / "bundle.json").write_text(json.dumps({**raw, **change}))
        fails("inspect", copy)


def test_fozo_without_source_statistics(sourceless: Path, tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    message = fails("adapt", sourceless, *QUICK, "--out", out)
    assert "source statistics" in message
    assert "fozo source" in message
    assert not out.exists()
    succeeds("adapt", sourceless, *QUICK, "--out", out, "-m", "no_adapt", "-m", "shift_origin")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["-m", "sgd"], "sgd"),
        (["-m", ""], "method"),
        (["-m", "fozo:samples"], "OPTION=VALUE"),
        (["-m", "fozo:nonsense=1"], "nonsense"),
        (["-m", "fozo:samples=many"], "samples"),
        (["-m", "fozo:samples=0"], "samples"),
        (["-m", "fozo:shift=up"], "shift"),
        (["-m", "fozo:epsilon=nan"], "epsilon"),
        (["-m", "no_adapt:samples=1"], "samples"),
        (["--setting", "random"], "random"),
        (["--rounds", "3"], "--setting rounds"),
        (["--concentration", "3"], "--setting label_shift"),
        (["--setting", "label_shift", "--concentration", "0"], "0"),
        (["--seeds", "0"], "0"),
        (["--severities", "6"], "6"),
        (["--severities", "0-5"], "0-5"),
        (["--severities", "5-1"], "5-1"),
        (["--severities", "some"], "some"),
        (["--batch-size", "0"], "0"),
        (["--subset", "half"], "half"),
        (["--subset", "50k"], "50,000"),
        (["--subset", "798"], "797"),
        (["--subset-list", "nowhere.txt"], "nowhere.txt"),
        (["--corruptions", "rain"], "rain"),
        (["--corruptions", "frost"], "--frost-textures"),
        (["--corruptions", "frost", "--frost-textures", "."], "missing: frost1"),
        (["--corruptions", ""], "corruption"),
        (["--precision", "int4"], "int4"),
        (["--workers", "0"], "workers"),
        (["--micro-batch", "0"], "micro-batch"),
        (["--seed", "-1"], "-1"),
        (["--dataset", "cifar"], "cifar"),
        (["--nonsense"], "nonsense"),
    ],
)
def test_options_that_cannot_be_used(options: list[str], word: str, bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    assert word in fails("adapt", bundle, "--dataset", "demo", "--out", out, *options)
    assert not out.exists()


@pytest.mark.parametrize(
    ("option", "suggestion"), [("--severity", "--severities"), ("--worker", "--workers")]
)
def test_a_misspelt_option_brings_a_suggestion(option: str, suggestion: str, bundle: Path) -> None:
    message = fails("adapt", bundle, option, 1)
    assert option in message and suggestion in message


@pytest.mark.parametrize("option", ["--data", "--generate-from"])
def test_options_that_would_do_nothing(option: str, bundle: Path, tmp_path: Path) -> None:
    arguments = ["adapt", bundle, *QUICK, "-m", "no_adapt", "--out", tmp_path / "results.json"]
    assert option in fails(*arguments, option, tmp_path)


def test_folders_that_cannot_be_used(bundle: Path, tmp_path: Path) -> None:
    out = ["--out", tmp_path / "results.json"]
    folder = ["adapt", bundle, "--dataset", "imagefolder", *out, "--data"]
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    assert "--data" in fails("adapt", bundle, *out)
    assert "nowhere" in fails(*folder, tmp_path / "nowhere")
    assert "empty" in fails(*folder, tmp_path / "empty")
    assert "file" in fails(*folder, tmp_path / "file")
    assert "no class" in fails(*folder, wrong_classes(tmp_path / "wrong"))
    assert "<class>/<image>" in fails(*folder, digits(tmp_path / "deep" / "data").parent)
    assert "missing" in fails("adapt", bundle, "--data", tmp_path / "empty", *out)
    assert not (tmp_path / "results.json").exists()


def wrong_classes(folder: Path) -> Path:
    (folder / "cat").mkdir(parents=True)
    Image.new("RGB", (32, 32)).save(folder / "cat" / "1.png")
    return folder


@pytest.mark.parametrize("kind", ["parent missing", "parent is a file", "a folder"])
def test_output_that_cannot_be_written(kind: str, bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    if kind == "a folder":
        out.mkdir()
    elif kind == "parent is a file":
        (tmp_path / "file").write_text("")
        out = tmp_path / "file" / "results.json"
    else:
        out = tmp_path / "no" / "results.json"
    before = time.monotonic()
    assert str(out) in fails("adapt", bundle, "--dataset", "demo", "--out", out).replace("'", "")
    assert time.monotonic() - before < 20  # before the work and not after it


@pytest.mark.parametrize("kind", ["corrupt", "bomb"])
def test_a_bad_image_in_the_middle_of_a_stream(kind: str, bundle: Path, tmp_path: Path) -> None:
    data, out = digits(tmp_path / "data", 60), tmp_path / "results.json"
    bad = data / "7" / "027.png"
    if kind == "bomb":
        bomb(bad)
    else:
        bad.write_bytes(bad.read_bytes()[:300])
    message = fails(
        "adapt", bundle, "--dataset", "imagefolder", "--data", data, "--out", out, "--batch-size", 2,
        "-m", "no_adapt", "-m", "fozo", partial=True,
    )  # fmt: skip
    assert "027.png" in message
    document = read(out)
    assert document["complete"] is False
    (domain,) = document["runs"][0]["domains"]
    assert domain["complete"] is False
    first, second = domain["methods"].values()
    assert first["images"] == second["images"] == sum(first["bins"]["images"])
    assert 0 < first["images"] < 60
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".tmp"] == []


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_interrupt(bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    arguments = ["adapt", bundle, "--dataset", "demo", "--batch-size", 1, "--out", out]
    arguments += ["-m", "no_adapt", "-m", "fozo:samples=8", "--corruptions", "clean,contrast,pixelate"]
    with subprocess.Popen(
        fozo_command(*arguments),
        env={**ENVIRONMENT, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=accept_interrupts,
    ) as process:
        watchdog = threading.Timer(100, process.kill)
        watchdog.start()
        assert process.stdout is not None
        assert process.stderr is not None
        seen = ""
        while "top-1 accuracy" not in seen and (line := process.stdout.readline()):
            seen += line
        time.sleep(3)
        assert process.poll() is None, "the stream was too short to be interrupted"
        process.send_signal(signal.SIGINT)
        before = time.monotonic()
        rest, errors = process.communicate()
        watchdog.cancel()
    assert process.returncode == 130, errors
    assert time.monotonic() - before < 10
    assert errors.splitlines()[-1] == "Interrupted."
    assert "Traceback" not in errors
    assert "first" in rest
    document = read(out)
    assert document["complete"] is False
    last = document["runs"][0]["domains"][-1]
    part = last["methods"]["no_adapt"]
    assert last["complete"] is False
    assert 0 < part["images"] == sum(part["bins"]["images"]) < 797
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.json", "results.progress.npz"]


def test_a_picture_is_no_place_for_results(bundle: Path, tmp_path: Path) -> None:
    for name in ("results.png", "results", "eps0.1"):
        message = fails("adapt", bundle, "--dataset", "demo", "--out", tmp_path / name)
        assert "expected a .json file" in message
    assert list(tmp_path.iterdir()) == []


def test_old_results_stay_until_there_are_new_ones(bundle: Path, tmp_path: Path) -> None:
    data, out = digits(tmp_path / "data", 20), tmp_path / "results.json"
    for path in data.rglob("*.png"):
        path.write_bytes(b"no image")
    out.write_text("precious")
    fails("adapt", bundle, "--dataset", "imagefolder", "--data", data, "--out", out, "-m", "no_adapt")
    assert out.read_text() == "precious"


@pytest.mark.parametrize("command", ["source", "export"])
def test_a_negative_seed_is_refused_before_the_work(command: str, bundle: Path, tmp_path: Path) -> None:
    digits(tmp_path / "data", 40)
    arguments = {
        "source": ["source", bundle, tmp_path / "data", "--seed", -1],
        "export": ["export", "--model", "fozo_demo_vit", "--source", tmp_path / "data", "--seed", -1],
    }[command]
    assert "-1 is not in the range" in fails(*arguments, cwd=tmp_path)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("text", "blocks"),
    [("all", None), ("none", ()), ("3", (3,)), ("1-8", tuple(range(1, 9))), ("4,0-2,1", (0, 1, 2, 4))],
)
def test_blocks_are_read(text: str, blocks: tuple[int, ...] | None) -> None:
    assert Blocks().convert(text, None, None) == blocks


@pytest.mark.parametrize("text", ["", "some", "1-", "-1", "3-1", "1-2-3", "1,,2", "1.5"])
def test_blocks_that_cannot_be_read(text: str) -> None:
    with pytest.raises(click.BadParameter, match="blocks like 1-8"):
        Blocks().convert(text, None, None)
