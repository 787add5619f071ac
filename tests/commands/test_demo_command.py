"""`fozo demo`: the first command after the installation."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from command_doubles import ENVIRONMENT, extract_counts, fails, read_json, start_process, succeeds
from doubles import child_environment, fozo_command
from fozo.cli import cli
from fozo.data.demo import DEMO_BUNDLE
from fozo.engine.bundle.bundle import Bundle
from fozo.eval.datasets import digits
from fozo.eval.datasets.digits import DEMO_CORRUPTIONS
from PIL import Image


@pytest.fixture(scope="module")
def demonstrated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return the folder that a demonstration has written, and its output."""
    folder = tmp_path_factory.mktemp("demo")
    return folder / "demo", succeeds("demo", cwd=folder)


def copy(demonstrated: tuple[Path, str], folder: Path) -> Path:
    return Path(shutil.copytree(demonstrated[0], folder / "demo"))


def test_the_demonstration_shows_a_bar_per_corruption(demonstrated: tuple[Path, str]) -> None:
    folder, text = demonstrated
    document = read_json(folder / "results.json")
    lines = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    for result in document["runs"][0]["domains"]:
        before, after = (100 * result["methods"][label]["accuracy"] for label in ("no_adapt", "pizo"))
        assert f"{before:.1f} " in lines[result["name"]]
        assert f" {after - before:+.1f}" in lines[result["name"]]
    assert [result["name"] for result in document["runs"][0]["domains"]] == list(DEMO_CORRUPTIONS)
    assert "=" in lines["average"]


def test_the_demonstration_gains_what_the_readme_says(demonstrated: tuple[Path, str]) -> None:
    """Two points on average and seven on contrast, with room for other processors."""
    domains = read_json(demonstrated[0] / "results.json")["runs"][0]["domains"]
    gains = {
        result["name"]: result["methods"]["pizo"]["accuracy"] - result["methods"]["no_adapt"]["accuracy"]
        for result in domains
    }
    clean = gains.pop("clean")
    assert 0.015 < np.mean(list(gains.values())) < 0.03
    assert 0.05 < gains["contrast"] < 0.09
    assert abs(clean) < 0.005


def test_the_demonstration_leaves_a_bundle_and_a_picture(demonstrated: tuple[Path, str]) -> None:
    folder, text = demonstrated
    assert sorted(path.name for path in folder.iterdir()) == ["bundle", "results.json", "results.png"]
    assert Bundle.open(folder / "bundle").manifest == Bundle.open(DEMO_BUNDLE).manifest
    with Image.open(folder / "results.png") as image:
        assert image.format == "PNG" and image.width > 600 and image.height > 400
    assert (folder / "results.png").stat().st_size < 100_000
    for name in ("results.png", "results.json"):
        assert str(Path("demo", name)) in text


def test_the_next_steps_can_be_typed(demonstrated: tuple[Path, str]) -> None:
    folder, text = demonstrated
    steps = [
        line.split("fozo ", 1)[1].split() for line in text.splitlines() if ": " in line and "fozo " in line
    ]
    commands = [step for step in steps if step[0] in ("report", "adapt")]
    assert [step[0] for step in commands] == ["report", "adapt"]
    report, adapt = commands
    succeeds(*report, "--out", folder.parent / "report.html", cwd=folder.parent)
    out = folder.parent / "results.json"
    succeeds(*adapt, "--subset", 20, "--corruptions", "contrast", "--out", out, cwd=folder.parent)


def test_a_demonstration_again_says_the_same_at_once(demonstrated: tuple[Path, str], tmp_path: Path) -> None:
    results = copy(demonstrated, tmp_path) / "results.json"
    before = results.read_bytes()
    assert succeeds("demo", cwd=tmp_path) == demonstrated[1]
    assert results.read_bytes() == before


def test_a_demonstration_prints_json_alone(demonstrated: tuple[Path, str], tmp_path: Path) -> None:
    results = copy(demonstrated, tmp_path) / "results.json"
    assert json.loads(succeeds("demo", "--json", cwd=tmp_path)) == read_json(results)


def test_a_demonstration_fits_a_narrow_plain_terminal(demonstrated: tuple[Path, str], tmp_path: Path) -> None:
    copy(demonstrated, tmp_path)
    environment = child_environment(PYTHONIOENCODING="ascii", PYTHONUTF8="0", COLUMNS="40")
    result = subprocess.run(fozo_command("demo"), env=environment, cwd=tmp_path, capture_output=True)
    assert (result.returncode, result.stderr) == (0, b"")
    assert "\\u" not in result.stdout.decode("ascii")
    bars = [line for line in result.stdout.decode("ascii").splitlines() if "===" in line]
    assert len(bars) == len(DEMO_CORRUPTIONS) + 1
    assert max(map(len, bars)) <= 40


# --- a shorter demonstration ---

SHORT = ("contrast", "clean")
RUN_SHORT = f"""
from fozo.eval.datasets import digits
digits.DEMO_CORRUPTIONS = {SHORT}
from fozo.cli import main
main()
"""


def demonstrate_shortly(folder: Path) -> str:
    command = [sys.executable, "-c", RUN_SHORT, "demo", "--quiet"]
    result = subprocess.run(command, env=ENVIRONMENT, cwd=folder, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """Return the counts and the output of a short demonstration that nothing interrupted."""
    folder = tmp_path_factory.mktemp("short")
    text = demonstrate_shortly(folder)
    return extract_counts(read_json(folder / "demo" / "results.json")), text


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_demonstration_that_was_stopped_goes_on(
    number: signal.Signals, short: tuple[dict[str, Any], str], tmp_path: Path
) -> None:
    with start_process([sys.executable, "-c", RUN_SHORT, "demo", "--quiet"], cwd=tmp_path) as process:
        assert process.stdout is not None
        while not (line := process.stdout.readline()).startswith("contrast"):
            assert line, "it ended before its first bar"
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    if number == signal.SIGINT:
        assert (process.returncode, errors.split()) == (130, ["Interrupted."])
    assert process.returncode != 0
    assert demonstrate_shortly(tmp_path) == short[1]
    folder = tmp_path / "demo"
    assert extract_counts(read_json(folder / "results.json")) == short[0]
    assert sorted(path.name for path in folder.iterdir()) == ["bundle", "results.json", "results.png"]


def test_results_of_another_precision_are_not_replaced_unasked(
    demonstrated: tuple[Path, str], tmp_path: Path
) -> None:
    results = copy(demonstrated, tmp_path) / "results.json"
    before = results.read_bytes()
    message = fails("demo", "--precision", "int8", cwd=tmp_path)
    assert "holds another run" in message and "--out" in message and "--overwrite" in message
    assert results.read_bytes() == before


def test_overwrite_runs_again(
    demonstrated: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy(demonstrated, tmp_path)
    (folder / "results.json").write_text("something else")
    assert "holds another run" in fails("demo", cwd=tmp_path)
    monkeypatch.setattr(digits, "DEMO_CORRUPTIONS", ("clean",))
    arguments = ["demo", "--precision", "int8", "--overwrite", "--out", str(folder)]
    assert CliRunner().invoke(cli, arguments).exit_code == 0
    assert read_json(folder / "results.json")["bundle"]["precision"] == "int8"


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    message = fails("demo", "--out", tmp_path / "file" / "demo")
    assert "file/demo" in message and "--out" in message
