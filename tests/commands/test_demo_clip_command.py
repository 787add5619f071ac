"""`fozo demo --clip`: a tiny CLIP trained on digits."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from command_doubles import read_json, succeeds
from fozo.data.demo import DEMO_CLIP_BUNDLE
from fozo.engine.bundle.bundle import Bundle
from PIL import Image

METHODS = ("no_adapt", "zero", "stss", "tda", "gauss", "pizo")


@pytest.fixture(scope="module")
def demonstrated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return the folder that a demonstration has written, and its output."""
    folder = tmp_path_factory.mktemp("demo")
    return folder / "demo-clip", succeeds("demo", "--clip", "--precision", "int8", cwd=folder)


def copy(demonstrated: tuple[Path, str], folder: Path) -> Path:
    return Path(shutil.copytree(demonstrated[0], folder / "demo-clip"))


def test_the_demonstration_shows_a_row_per_corruption(demonstrated: tuple[Path, str]) -> None:
    folder, text = demonstrated
    document = read_json(folder / "results.json")
    lines = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.strip()}
    domains = document["runs"][0]["domains"]
    assert [domain["name"] for domain in domains] == [
        "gaussian_noise",
        "impulse_noise",
        "contrast",
        "pixelate",
        "clean",
    ]
    for domain in domains:
        shown = [float(cell.rstrip("*~")) for cell in lines[domain["name"]] if cell.rstrip("*~")]
        expected = [100 * domain["methods"][label]["accuracy"] for label in METHODS]
        assert shown == pytest.approx(expected, abs=0.06)
    for label in METHODS:
        assert float(lines[label][0]) == pytest.approx(100 * document["average"][label]["accuracy"], abs=0.01)
    assert "a tiny CLIP trained on digits" in text and "zero to nine" in text


def test_the_demonstration_leaves_a_bundle_and_a_picture(demonstrated: tuple[Path, str]) -> None:
    folder, text = demonstrated
    assert sorted(path.name for path in folder.iterdir()) == ["bundle", "results.json", "results.png"]
    assert Bundle.open(folder / "bundle").sha256 == Bundle.open(DEMO_CLIP_BUNDLE).sha256
    with Image.open(folder / "results.png") as image:
        assert image.format == "PNG" and image.width > 600 and image.height > 400
    for name in ("results.png", "results.json"):
        assert str(Path("demo-clip", name)) in text


def test_the_next_steps_can_be_typed(demonstrated: tuple[Path, str]) -> None:
    folder, text = demonstrated
    steps = [
        line.split("fozo ", 1)[1].split() for line in text.splitlines() if ": " in line and "fozo " in line
    ]
    report, adapt = [step for step in steps if step[0] in ("report", "adapt")]
    succeeds(*report, "--out", folder.parent / "report.html", cwd=folder.parent)
    out = folder.parent / "results.json"
    succeeds(*adapt, "--subset", 20, "--corruptions", "contrast", "--out", out, cwd=folder.parent)


def test_a_demonstration_again_says_the_same_at_once(demonstrated: tuple[Path, str], tmp_path: Path) -> None:
    results = copy(demonstrated, tmp_path) / "results.json"
    before = results.read_bytes()
    assert succeeds("demo", "--clip", "--precision", "int8", cwd=tmp_path) == demonstrated[1]
    assert results.read_bytes() == before
    printed = succeeds("demo", "--clip", "--precision", "int8", "--json", cwd=tmp_path)
    assert json.loads(printed) == read_json(results)
