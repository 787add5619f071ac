"""`fozo tune` for what is added to the images, as a process: learnt, killed and continued, and used again."""

from __future__ import annotations

import csv
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_doubles import fails, read_json, start_process, succeeds
from doubles import fozo_command
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.tuning.bar import compute_border, draw_border
from tune_doubles import kill_tuning, make_colours, make_tuning_bundle

BAR = ("--method", "bar", "--shots", "4", "--batch", "5")
BPT = ("--method", "bpt", "--visual", "--shots", "4", "--batch", "5", "--dimension", "6", "--vectors", "2")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_colours(tmp_path / "data")
    make_tuning_bundle(tmp_path, pixels=True)
    return tmp_path


def strip(content: dict[str, Any]) -> dict[str, Any]:
    """Return results without what differs between equal runs."""
    return {
        name: value for name, value in content.items() if name not in ("created", "bundle", "head", "seconds")
    }


def predict_classes(head: str, folder: Path) -> int:
    """Return how many test images `fozo predict` gets right with a head."""
    table = ("--out", f"{head}.csv", "-m", "no_adapt", "--batch-size", "5")
    succeeds("predict", "--bundle", "clip", "--head", head, "data/test", *table, cwd=folder)
    rows = list(csv.DictReader((folder / f"{head}.csv").read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 12
    return sum(Path(row["path"]).parent.name == row["class_id"] for row in rows)


def test_a_border_is_learnt_and_used(folder: Path) -> None:
    output = succeeds(
        *("tune", "clip", "--data", "data", *BAR, "--budget", "70", "--as", "border", "--evaluate", "test"),
        cwd=folder,
    )
    assert "bar on 12 images of 3 classes of data, seed 1" in output
    assert "Border: 1 pixels around images of 2 x 2, 48 values; texts: 'a photo of a {}.'" in output
    cost = "12 steps, 72 calls of a batch under one candidate; 3 texts through the text tower (forwards), 360"
    assert f"Cost: {cost}" in output and f"Used: {cost}" in output
    content = read_json(folder / "tuning.json")
    record = content["tuning"]
    assert (record["method"], record["batch"], record["crops"], record["rate"]) == ("bar", 5, None, 10.0)
    assert (record["directions"], record["perturbation"], record["frame"]) == (5, 0.01, 1)
    assert "pairs" not in record and "dimension" not in record
    assert record["initial_norm"] == pytest.approx(np.linalg.norm(draw_border(1, (4, 4))))
    prompts = content["evaluations"][0]["prompts"]
    assert list(prompts) == ["a photo of a {}.", "tuned"] and prompts["tuned"]["images"] == 12
    assert prompts["tuned"]["nll"] != prompts["a photo of a {}."]["nll"]
    bundle = Bundle.open(folder / "clip")
    head = bundle.load_head("border")
    assert (head.context, head.templates) == (None, ("a photo of a {}.",))
    assert head.image_prompt is not None and head.image_prompt.pixels is not None
    assert np.count_nonzero(head.image_prompt.pixels) == 3 * 12
    first = compute_border(draw_border(1, (4, 4)), 1)
    assert np.abs(head.image_prompt.pixels - first).max() > 0.01
    # Another process classifies as the evaluation did.
    assert predict_classes("border", folder) == prompts["tuned"]["correct"]
    options = (
        "--dataset",
        "split",
        "--data",
        "data",
        "--head",
        "border",
        "-m",
        "no_adapt",
        "--batch-size",
        "5",
    )
    table = succeeds("adapt", "clip", *options, "--out", "results.json", cwd=folder)
    assert "a learnt border of 1 pixels" in table
    (domain,) = read_json(folder / "results.json")["runs"][0]["domains"]
    assert domain["methods"]["no_adapt"]["correct"] == prompts["tuned"]["correct"]
    assert "a learnt border of 1 pixels" in succeeds("classes", "clip", cwd=folder)
    assert "context" in fails(
        *("transfer", "clip", "--head-context", "border", "--data", "data", "--out", "t.json"), cwd=folder
    )


@pytest.mark.parametrize(
    "method",
    [(*BAR, "--budget", "900"), (*BPT, "--population", "4", "--budget", "800")],
    ids=["bar", "bpt"],
)
def test_a_killed_run_is_continued_with_the_same_result(method: tuple[str, ...], folder: Path) -> None:
    options = ("--data", "data", *method, "--save-every", "0")
    succeeds("tune", "clip", *options, "--as", "whole", "--out", "whole.json", cwd=folder)
    kill_tuning(folder, options)
    output = succeeds(
        *("tune", "clip", *options, "--as", "killed", "--out", "killed.json", "--resume"), cwd=folder
    )
    assert "Continuing after" in output
    whole, killed = (strip(read_json(folder / f"{name}.json")) for name in ("whole", "killed"))
    assert whole == killed
    prompts = [Bundle.open(folder / "clip").load_head(name).image_prompt for name in ("whole", "killed")]
    for first, second in zip(*(prompt.arrays.values() for prompt in prompts if prompt), strict=True):
        np.testing.assert_array_equal(first, second)


def test_prompts_of_both_towers_are_learnt_and_used(folder: Path) -> None:
    options = ("--data", "data", *BPT, "--budget", "90", "--as", "both", "--evaluate", "test")
    output = succeeds("tune", "clip", *options, cwd=folder)
    assert "2 vectors, from 2 zero vectors" in output and "Prompts of the image tower: learnt" in output
    # 15 candidates see two batches of five: 30 calls and 150 images in a generation.
    assert "Cost: 3 steps, 90 calls" in output and "135 texts" in output and "450 images" in output
    content = read_json(folder / "tuning.json")
    assert content["tuning"]["visual"] is True
    prompts = content["evaluations"][0]["prompts"]
    bundle = Bundle.open(folder / "clip")
    head = bundle.load_head("both")
    assert head.context is not None and head.context.shape == (2, 4)
    assert head.image_prompt is not None and head.image_prompt.prompts is not None
    assert head.image_prompt.prompts.shape == (5, 3) and head.image_prompt.prompts.any()
    assert predict_classes("both", folder) == prompts["tuned"]["correct"]
    transfer = ("transfer", "clip", "--head-context", "both", "--data", "data", "--out", "transfer.json")
    assert "learnt together with prompts of the image tower" in fails(*transfer, cwd=folder)


@pytest.mark.parametrize("outside", [False, True])
def test_a_prompt_for_every_image_is_learnt_and_used(outside: bool, tmp_path: Path) -> None:
    make_colours(tmp_path / "data")
    make_tuning_bundle(tmp_path, pixels=True, side=32)
    options = ("--method", "blackvip", "--shots", "4", "--batch", "5", "--pairs", "2", "--save-every", "0")
    if outside:
        make_tuning_bundle(tmp_path / "encoder", side=32)
        options += ("--encoder", "encoder/clip")
    arguments = ("tune", "clip", "--data", "data", *options, "--budget", "40")
    output = succeeds(*arguments, "--as", "whole", "--out", "whole.json", "--evaluate", "test", cwd=tmp_path)
    source = "features of encoder/clip" if outside else "the model's own features"
    assert f"Decoder: 9,149 values, from {source} (3)" in output
    assert "10 steps, 40 calls" in output and "200 images through the image tower and 50 through" in output
    content = read_json(tmp_path / "whole.json")
    assert ("encoder_sha256" in content["tuning"]) == outside and content["cost"]["encoder_encodes"] == 50
    correct = content["evaluations"][0]["prompts"]["tuned"]["correct"]
    assert predict_classes("whole", tmp_path) == correct
    # Four steps, and the others after an interruption.
    begin = ("--as", "part", "--out", "part.json", "--evaluate", "test")
    command = fozo_command(*arguments[:1], tmp_path / "clip", *arguments[2:], *begin)
    progress = tmp_path / "part.progress.npz"
    with start_process(command, cwd=tmp_path) as process:
        while not progress.exists() and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    succeeds(*arguments, *begin, "--resume", cwd=tmp_path)
    assert strip(read_json(tmp_path / "part.json")) == strip(content)


def test_bundles_without_the_spread_of_their_weights(tmp_path: Path) -> None:
    make_colours(tmp_path / "data")
    make_tuning_bundle(tmp_path)
    message = fails("tune", "clip", "--data", "data", *BPT, "--as", "both", cwd=tmp_path)
    assert "--visual needs mean and standard deviation" in message and "export the model again" in message


def test_base_and_new_classes_share_the_border(folder: Path) -> None:
    options = ("--data", "data", *BAR, "--budget", "12", "--seeds", "1,2", "--as", "border")
    output = succeeds("tune", "clip", *options, "--classes", "base", "--evaluate", "new", cwd=folder)
    assert "data: 8 images of 2 base classes" in output and "data: 4 images of 1 new classes" in output
    summary = read_json(folder / "tuning.json")
    assert summary["tuning"]["calls"] == 12 and "tuned" in summary["harmonic_means"]


def test_graphs_without_pixels(tmp_path: Path) -> None:
    make_colours(tmp_path / "data")
    make_tuning_bundle(tmp_path)
    message = fails("tune", "clip", "--data", "data", *BAR, "--as", "border", cwd=tmp_path)
    assert "--method bar tunes pixels" in message and "export the model again with --pixels" in message
    assert not (tmp_path / "tuning.progress.npz").exists()


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ((*BAR, "--vectors", "3"), "--method bar has no --vectors, which belongs to"),
        ((*BAR, "--pairs", "3"), "--method bar has no --pairs"),
        ((*BAR, "--visual"), "--method bar has no --visual, which belongs to bpt"),
        ((*BAR, "--as", "animals", "--overwrite"), "would be used where none is selected"),
    ],
)
def test_options_that_cannot_be_used(options: tuple[str, ...], word: str, folder: Path) -> None:
    arguments = ("--data", "data", "--as", "border", *options, "--budget", "6")
    assert word in fails("tune", "clip", *arguments, cwd=folder)
    assert not (folder / "tuning.json").exists() and not (folder / "tuning.progress.npz").exists()
