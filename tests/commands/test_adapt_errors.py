"""`fozo adapt` with bad input: one clear line, and nothing is lost."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from command_doubles import (
    QUICK,
    fails,
    read_json,
    save_bomb,
    save_noise_images,
    save_wrong_classes,
)


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
    assert "no class" in fails(*folder, save_wrong_classes(tmp_path / "wrong"))
    assert "<class>/<image>" in fails(*folder, save_noise_images(tmp_path / "deep" / "data").parent)
    assert "missing" in fails("adapt", bundle, "--data", tmp_path / "empty", *out)
    assert not (tmp_path / "results.json").exists()


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
    data, out = save_noise_images(tmp_path / "data", 60), tmp_path / "results.json"
    bad = data / "7" / "027.png"
    if kind == "bomb":
        save_bomb(bad)
    else:
        bad.write_bytes(bad.read_bytes()[:300])
    message = fails(
        "adapt", bundle, "--dataset", "imagefolder", "--data", data, "--out", out, "--batch-size", 2,
        "-m", "no_adapt", "-m", "fozo", partial=True,
    )  # fmt: skip
    assert "027.png" in message
    document = read_json(out)
    assert document["complete"] is False
    (domain,) = document["runs"][0]["domains"]
    assert domain["complete"] is False
    first, second = domain["methods"].values()
    assert first["images"] == second["images"] == sum(first["bins"]["images"])
    assert 0 < first["images"] < 60
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".tmp"] == []


def test_a_picture_is_no_place_for_results(bundle: Path, tmp_path: Path) -> None:
    for name in ("results.png", "results", "eps0.1"):
        message = fails("adapt", bundle, "--dataset", "demo", "--out", tmp_path / name)
        assert "expected a .json file" in message
    assert list(tmp_path.iterdir()) == []


def test_old_results_stay_until_there_are_new_ones(bundle: Path, tmp_path: Path) -> None:
    data, out = save_noise_images(tmp_path / "data", 20), tmp_path / "results.json"
    for path in data.rglob("*.png"):
        path.write_bytes(b"no image")
    out.write_text("precious")
    options = ["adapt", bundle, "--dataset", "imagefolder", "--data", data, "--out", out, "-m", "no_adapt"]
    assert "exists" in fails(*options)
    fails(*options, "--overwrite")
    assert out.read_text() == "precious"
