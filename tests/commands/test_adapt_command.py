"""`fozo adapt` as a real process: results, settings, interruptions."""

from __future__ import annotations

import os
import re
import signal
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_doubles import (
    QUICK,
    extract_counts,
    fails,
    read_json,
    run_command,
    save_noise_images,
    start_process,
    succeeds,
)
from doubles import fozo_command
from fozo.eval.datasets.corruption_names import IMAGENET_C
from PIL import Image


def test_results(adapted: tuple[Path, str], bundle: Path) -> None:
    out, text = adapted
    document = read_json(out)
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
        "class_order": None,
        "exif_orientation": "ignore",
        "orders": False,
        "reduced_above": None,
    }
    assert document["bundle"]["model"] == "fozo_demo_vit"
    assert document["bundle"]["classes"] == 10
    digest = document["bundle"]["weights_sha256"]
    assert f"weights: demo_vit.safetensors, SHA-256 {digest[:12]}…" in text
    assert "images: resize shorter side to 32 (bicubic), crop 32 × 32, mean 0.5 0.5 0.5, std 0.5" in text
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
    expected = extract_counts(read_json(adapted[0]))
    for split in (["--micro-batch", 7, "--workers", 1], ["--micro-batch", 64, "--workers", 3]):
        out = tmp_path / "again.json"
        succeeds("adapt", bundle, *QUICK, "--out", out, "--overwrite", "--quiet", *split)
        assert extract_counts(read_json(out)) == expected
        assert read_json(out)["engine"] == {"provider": "cpu", "workers": split[3], "micro_batch": split[1]}


def test_settings_differ_after_the_first_domain(
    adapted: tuple[Path, str], bundle: Path, tmp_path: Path
) -> None:
    out = tmp_path / "continual.json"
    succeeds("adapt", bundle, *QUICK, "--out", out, "--setting", "continual")
    reset, continual = read_json(adapted[0]), read_json(out)
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


def warns_of_labels(*arguments: object) -> None:
    """Run a command on images of noise, which no model can tell apart."""
    result = run_command(*arguments)
    assert result.returncode == 0, result.stderr
    assert "guessing among 10 classes" in result.stderr


def test_options_and_folders(bundle: Path, tmp_path: Path) -> None:
    data, out = save_noise_images(tmp_path / "data"), tmp_path / "out.json"
    warns_of_labels(
        "adapt", bundle, "--dataset", "imagefolder", "--data", data, "--out", out, "--batch-size", 8,
        "-m", "fozo:samples=2,shift=origin", "-m", "no_adapt", "--seed", 1, "--classes", "present",
    )  # fmt: skip
    document = read_json(out)
    assert list(document["methods"]) == ["fozo:samples=2,shift=origin", "no_adapt"]
    options = document["methods"]["fozo:samples=2,shift=origin"]["options"]
    assert (options["samples"], options["shift"]) == (2, "origin")
    (domain,) = document["runs"][0]["domains"]
    assert domain["methods"]["fozo:samples=2,shift=origin"]["forwards"] == 12
    assert document["protocol"]["severities"] == []
    warns_of_labels(
        "adapt", bundle, "--generate-from", data, "--corruptions", "contrast", "--severities", 1,
        "--out", out, "--overwrite", "-m", "no_adapt",
    )  # fmt: skip
    document = read_json(out)
    assert "not the official" in document["protocol"]["dataset"]
    assert document["runs"][0]["domains"][0]["generated"] is True
    assert "--frost-textures" in fails("adapt", bundle, "--data", data, "--frost-textures", data)
    options = ["adapt", bundle, "--generate-from", data, "--severities", 1, "--out", out, "-m", "no_adapt"]
    assert "--overwrite" in fails(*options)
    warns_of_labels(*options, "--overwrite")
    document = read_json(out)
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
    document = read_json(out)
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
    with start_process(fozo_command(*arguments)) as process:
        assert process.stdout is not None
        while "top-1 accuracy" not in (line := process.stdout.readline()):
            assert line
        time.sleep(2)
        process.terminate()
        process.communicate(timeout=60)
    assert process.returncode == 143
    assert read_json(out)["complete"] is False
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
        assert read_json(folder / "results.json")["complete"] is True
    finally:
        for name in ("results.json", "results.png"):
            (folder / name).unlink(missing_ok=True)


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_interrupt(bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    arguments = ["adapt", bundle, "--dataset", "demo", "--batch-size", 1, "--out", out]
    arguments += ["-m", "no_adapt", "-m", "fozo:samples=8", "--corruptions", "clean,contrast,pixelate"]
    with start_process(fozo_command(*arguments)) as process:
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
    assert process.returncode == 130, errors
    assert time.monotonic() - before < 10
    assert errors.splitlines()[-1] == "Interrupted."
    assert "Traceback" not in errors
    assert "first" in rest
    document = read_json(out)
    assert document["complete"] is False
    last = document["runs"][0]["domains"][-1]
    part = last["methods"]["no_adapt"]
    assert last["complete"] is False
    assert 0 < part["images"] == sum(part["bins"]["images"]) < 797
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.json", "results.progress.npz"]


def test_fozo_without_source_statistics(sourceless: Path, tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    message = fails("adapt", sourceless, *QUICK, "--out", out)
    assert "source statistics" in message
    assert "fozo source" in message
    assert not out.exists()
    succeeds("adapt", sourceless, *QUICK, "--out", out, "-m", "no_adapt", "-m", "shift_origin")
