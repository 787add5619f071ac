"""`fozo tune` as a process: with and without gradients, killed and continued, and with bad input."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from command_doubles import fails, read_json, succeeds
from fozo.cli import cli
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.errors import FozoError
from text_doubles import EMBEDDING, START, WIDTH, make_text_bundle
from tune_doubles import kill_tuning, make_colours, make_tuning_bundle

ZO = ("--method", "zo-sapt", "--shots", "4", "--vectors", "2", "--rate", "0.1", "--pairs", "2")
ZIP = ("--method", "zip", "--shots", "4", "--vectors", "2", "--dimension", "8", "--rank", "2")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_colours(tmp_path / "data")
    make_tuning_bundle(tmp_path)
    return tmp_path


def strip(content: dict[str, Any]) -> dict[str, Any]:
    """Return results without what differs between equal runs."""
    return {name: value for name, value in content.items() if name not in ("created", "bundle", "seconds")}


def test_tuning_without_gradients(folder: Path) -> None:
    output = succeeds(
        *("tune", "clip", "--data", "data", "--as", "mine", *ZO, "--epochs", "20", "--evaluate", "test"),
        cwd=folder,
    )
    assert "zo-sapt on 12 images of 3 classes of data, seed 1" in output
    assert "2 vectors, from 2 random vectors, of length" in output
    assert "Cost: 20 steps, 160 calls" in output
    assert "480 texts through the text tower (forwards), 12 images" in output
    assert "step 20 of 20: loss" in output and "at the perturbed context" in output
    assert "a photo of a {}." in output and "Head mine is in clip" in output
    content = read_json(folder / "tuning.json")
    assert (content["kind"], content["head"], content["complete"]) == ("tuning", "mine", True)
    assert [len(values) for values in content["curve"].values()] == [20, 20, 20]
    assert (folder / "tuning.png").read_bytes().startswith(b"\x89PNG")
    assert not (folder / "tuning.progress.npz").exists()
    head = Bundle.open(folder / "clip").load_head("mine")
    assert head.context is not None and head.context.shape == (2, 4)
    adapted = succeeds(
        *("tune", "clip", "--data", "data", "--as", "mine", *ZO, "--epochs", "20", "--resume"), cwd=folder
    )
    assert adapted == "tuning.json is complete already.\n"


@pytest.mark.parametrize(
    "method",
    [
        (*ZO, "--epochs", "150", "--batch", "5", "--crops", "2"),
        (*ZIP, "--budget", "1500", "--batch", "5", "--crops", "fresh", "--update", "spsa-gc"),
    ],
    ids=["zo-sapt", "zip"],
)
def test_a_killed_run_is_continued_with_the_same_result(method: tuple[str, ...], folder: Path) -> None:
    options = ("--data", "data", *method, "--save-every", "0")
    succeeds("tune", "clip", *options, "--as", "whole", "--out", "whole.json", cwd=folder)
    kill_tuning(folder, options)
    assert not (folder / "killed.json").exists()
    assert "killed" not in Bundle.open(folder / "clip").manifest.heads
    message = fails("tune", "clip", *options, "--as", "killed", "--out", "killed.json", cwd=folder)
    assert "killed.progress.npz is of an interrupted run: continue it with --resume" in message
    output = succeeds(
        *("tune", "clip", *options, "--as", "killed", "--out", "killed.json", "--resume"), cwd=folder
    )
    assert "Continuing after" in output
    whole, killed = (strip(read_json(folder / f"{name}.json")) for name in ("whole", "killed"))
    assert (whole.pop("head"), killed.pop("head")) == ("whole", "killed")
    assert whole == killed
    bundle = Bundle.open(folder / "clip")
    np.testing.assert_array_equal(bundle.load_head("whole").context, bundle.load_head("killed").context)


def test_tuning_with_gradients(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="gradients need PyTorch")
    from clip_doubles import make_clip
    from fozo.export.text_graph import build_text_graph
    from fozo.export.text_model import read_text_tower

    tower = make_clip(
        text={"width": WIDTH, "heads": 1, "layers": 2, "vocab_size": START + 2}, embed_dim=EMBEDDING
    )
    graph = build_text_graph(read_text_tower(tower, START, START + 1)).SerializeToString()
    make_text_bundle(tmp_path, graph=graph)
    make_colours(tmp_path / "data")
    options = ("--data", "data", "--batch", "6", "--rate", "0.05", "--epochs", "20", "--workers", "1")
    output = succeeds("tune", "clip", *options, "--as", "sapt", "--shots", "4", cwd=tmp_path)
    assert "from the words 'a photo of a'" in output
    assert "Cost: 40 steps, 80 calls" in output and "(forwards and backwards)" in output
    content = read_json(tmp_path / "tuning.json")
    losses = content["curve"]["loss"]
    assert np.mean(losses[-6:]) < np.mean(losses[:6])
    assert content["tuning"]["norm"] != content["tuning"]["initial_norm"]


def test_zip_from_base_to_new_classes_with_several_seeds(folder: Path) -> None:
    options = ("--data", "data", *ZIP, "--budget", "60", "--batch", "5", "--seeds", "3,1", "--as", "zip")
    options += ("--rate", "0.3")
    output = succeeds(
        "tune", "clip", *options, "--classes", "base", "--evaluate", "new", "--out", "zip.json", cwd=folder
    )
    assert "zip on 8 images of 2 classes of the base classes of data, seed 3" in output
    cost = "6 steps, 60 calls of a batch under one candidate; 120 texts through the text tower (forwards), 30"
    assert output.count(f"Cost: {cost}") == output.count(f"Used: {cost}") == 2
    assert "data: 8 images of 2 base classes" in output and "data: 4 images of 1 new classes" in output
    assert "zip on data, seeds 3, 1: mean ± standard deviation" in output
    runs = [read_json(folder / f"zip-{seed}.json") for seed in (3, 1)]
    assert [(run["head"], run["tuning"]["seed"]) for run in runs] == [("zip-3", 3), ("zip-1", 1)]
    summary = read_json(folder / "zip.json")
    assert [run["file"] for run in summary["runs"]] == ["zip-3.json", "zip-1.json"]
    scores = {(score["target"], score["prompt"]): score for score in summary["scores"]}
    assert [target for target, _ in scores] == ["base", "base", "new", "new"]
    base = [run["evaluations"][0]["prompts"]["tuned"]["accuracy"] for run in runs]
    assert scores["base", "tuned"]["accuracies"] == base
    assert scores["base", "tuned"]["standard_deviation"] == pytest.approx(np.std(base, ddof=1))
    assert scores["new", "tuned"]["mean"] == 1  # one class
    mean = np.mean(base)
    assert summary["harmonic_means"]["tuned"] == pytest.approx(2 * mean / (mean + 1))
    assert (folder / "zip.png").read_bytes().startswith(b"\x89PNG")
    assert {"zip-1", "zip-3"} < set(Bundle.open(folder / "clip").manifest.heads)
    message = fails("tune", "clip", *options, "--out", "zip.json", cwd=folder)
    assert "has a head zip-3 already" in message
    again = succeeds(
        *("tune", "clip", *options, "--classes", "base", "--evaluate", "new", "--out", "zip.json"),
        "--resume",
        cwd=folder,
    )
    assert "zip-1.json is complete already" in again and "step 6" not in again
    assert strip(read_json(folder / "zip.json")) == strip(summary)


def test_bpt(folder: Path) -> None:
    options = ("--method", "bpt", "--dimension", "6", "--budget", "45", "--vectors", "2", "--as", "bpt")
    output = succeeds("tune", "clip", "--data", "data", *options, "--evaluate", "test", cwd=folder)
    assert "Cost: 3 steps, 45 calls" in output and "135 texts through the text tower (forwards)" in output
    content = read_json(folder / "tuning.json")
    record = content["tuning"]
    assert (record["method"], record["population"], record["first_batches"]) == ("bpt", 15, False)
    assert record["initial_norm"] == 0 and record["norm"] > 0 and "rate" not in record
    assert set(content["evaluations"][0]["prompts"]) == {"a photo of a {}.", "tuned"}


def test_gda(folder: Path) -> None:
    options = ("tune", "clip", "--data", "data", "--method", "gda", "--shots", "5", "--as", "gda")
    output = succeeds(*options, "--evaluate", "test", "--seeds", "1,2", cwd=folder)
    assert "Cost: 1 steps, 0 calls" in output and "3 texts through the text tower (forwards), 15" in output
    assert "Context:" not in output and "Picture" not in output
    content = read_json(folder / "tuning-1.json")
    prompts = content["evaluations"][0]["prompts"]
    assert prompts["tuned"]["accuracy"] >= prompts["a photo of a {}."]["accuracy"]
    assert content["tuning"]["chosen_alpha"] > 0 and content["tuning"]["alpha"] is None
    bundle = Bundle.open(folder / "clip")
    head = bundle.load_head("gda-1")
    assert head.bias is not None and head.bias.any() and (head.images, head.context) == (15, None)
    assert head.templates == ("a photo of a {}.",)
    table = ("--out", "table.csv", "-m", "no_adapt")
    tests = sorted((folder / "data" / "test").rglob("*.png"))
    succeeds("predict", "--bundle", "clip", "--head", "gda-1", "data/test", *table, cwd=folder)
    rows = list(csv.DictReader((folder / "table.csv").read_text(encoding="utf-8").splitlines()))
    assert len(rows) == len(tests)
    right = sum(Path(row["path"]).parent.name == row["class_id"] for row in rows)
    assert right == prompts["tuned"]["correct"]
    message = fails(*options[:-1], "new", "--classes", "base", "--evaluate", "new", cwd=folder)
    assert "classifies the 2 classes that it learns, and no others" in message


def test_defaults_are_the_published_ones(folder: Path) -> None:
    output = succeeds(
        *("tune", "clip", "--data", "data", "--as", "mine", "--method", "zip", "--dimension", "12"),
        *("--rank", "1", "--budget", "10"),
        cwd=folder,
    )
    assert "8 vectors, from 8 random vectors" in output and "1 steps, 10 calls" in output
    record = read_json(folder / "tuning.json")["tuning"]
    assert (record["batch"], record["crops"], record["update"]) == (128, None, "spsa-clip")
    assert (record["rate"], record["pairs"], record["perturbation"]) == (0.01, 5, 0.01)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--data", "nowhere"], "nowhere"),
        (["--rank", "3"], "--method zo-sapt has no --rank, which belongs to zip, zip-cached"),
        (["--momentum", "0.5"], "has no --momentum, which belongs to sapt"),
        (["--epochs", "2", "--budget", "9"], "--epochs or --budget"),
        (["--crops", "new"], "or fresh"),
        (["--seeds", "1,1"], "expected different numbers"),
        (["--batch", "0"], "expected a number of images above 0, or all"),
        (["--ending", "a {}"], "begins with {}"),
        (["--evaluate", "nowhere"], "nowhere"),
        (["--words", "a\x1bb"], "control"),
        (["--split", "missing.json"], "missing.json"),
        (["--dataset", "flowers"], "oxford_flowers"),
        (["--head", "pets"], "has no head 'pets'"),
        (["--precision", "int8"], "int8"),
        (["--out", "results.txt"], ".json"),
        (["--as", "Pets"], "lower case"),
        (["--as", "animals"], "has a head animals already"),
    ],
)
def test_options_that_cannot_be_used(
    options: list[str], word: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = [] if "--words" in options else ["--vectors", "2"]
    monkeypatch.chdir(folder)
    arguments = ["tune", "clip", "--data", "data", "--as", "mine", "--method", "zo-sapt", *vectors, *options]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code in (1, 2) and isinstance(result.exception, (FozoError, SystemExit))
    assert word in (result.stderr or str(result.exception))
    assert "Cost" not in result.stdout  # before the work begins
    assert not Path("tuning.json").exists() and not Path("tuning.progress.npz").exists()
    assert set(Bundle.open(folder / "clip").manifest.heads) == {"animals"}
