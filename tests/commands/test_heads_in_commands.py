"""Heads and names in the commands that run methods: chosen, named in results, and made for one run."""

from __future__ import annotations

import csv
import html
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundle_doubles import make
from click.testing import CliRunner
from fozo import Adapter
from fozo.cli import cli
from fozo.data.images import preprocess, read_image
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.bundle.description import describe_bundle
from fozo.engine.runtime.class_head import make_head
from fozo.engine.runtime.network import Network
from fozo.engine.text.imagenet_templates import PRESETS
from PIL import Image
from text_doubles import make_text_bundle

NAMES = ("cat", "dog", "empty street")
TEMPLATES = ("a photo of a {}.", "art of the {}.")


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    bundle = make_text_bundle(tmp_path)
    return bundle.with_head("streets", make_head(bundle, NAMES, TEMPLATES))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Return a folder of classes with images in many colours."""
    generator = np.random.default_rng(0)
    for index in range(36):
        path = tmp_path / "photos" / ("cat", "dog", "empty street")[index % 3] / f"{index:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), tuple(generator.integers(0, 256, 3).tolist())).save(path)
    return tmp_path / "photos"


def run(*arguments: object) -> str:
    """Run a command in this process and return what it printed on standard output."""
    result = CliRunner().invoke(cli, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def fail(*arguments: object) -> str:
    result = CliRunner().invoke(cli, list(map(str, arguments)))
    assert result.exit_code != 0
    return str(result.exception)


def read_rows(output: str) -> dict[str, str]:
    """Return the predicted class of each image."""
    return {Path(row["path"]).name: row["class_name"] for row in csv.DictReader(io.StringIO(output))}


def predict_by_hand(bundle: Bundle, photos: Path, weight: Any, names: tuple[str, ...]) -> dict[str, str]:
    paths = sorted(photos.rglob("*.png"))
    images = np.stack([preprocess(read_image(path), bundle.manifest.preprocessing) for path in paths])
    with Network.open(bundle, workers=1) as network:
        embeddings = network(images).features[:, -1]
    best = (embeddings @ weight.T).argmax(axis=1)
    return {path.name: names[index] for path, index in zip(paths, best, strict=True)}


def test_adapt_names_the_head_and_its_templates(bundle: Bundle, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    data = ("--dataset", "imagefolder", "--data", photos, "-m", "no_adapt", "--quiet")
    output = run("adapt", bundle.path, "--head", "streets", *data, "--out", out)
    expected = "3 of the head streets, from 2 templates like 'a photo of a {}.'"
    assert f"classes: {expected}" in output
    facts = json.loads(out.read_text(encoding="utf-8"))["bundle"]["head"]
    stored = bundle.manifest.heads["streets"]
    assert facts == {
        "name": "streets",
        "classes": 3,
        "templates": list(TEMPLATES),
        "context_vectors": None,
        "images": None,
        "sha256": bundle.manifest.files[stored.file].sha256,
    }
    page = tmp_path / "report.html"
    run("report", out, "--out", page)
    assert expected in html.unescape(page.read_text(encoding="utf-8"))


def test_a_run_is_not_continued_with_another_head(bundle: Bundle, photos: Path, tmp_path: Path) -> None:
    (photos / "empty street").rename(photos.parent / "elsewhere")
    out = tmp_path / "results.json"
    data = ("--dataset", "imagefolder", "--data", photos, "-m", "no_adapt", "--quiet", "--out", out)
    run("adapt", bundle.path, *data)
    assert "complete already" in run("adapt", bundle.path, *data, "--resume")
    assert "is not of this run" in fail("adapt", bundle.path, *data, "--resume", "--head", "streets")


def test_sweep_and_bench_name_the_head(bundle: Bundle, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    data = ("--dataset", "imagefolder", "--data", photos, "-m", "no_adapt", "--seeds", "1", "--quiet")
    output = run("sweep", bundle.path, "--head", "streets", *data, "--out", out, "--processes", "1")
    assert "3 of the head streets" in output
    assert ",streets," in (out / "sweep.csv").read_text(encoding="utf-8")
    bench = tmp_path / "bench.json"
    few = ("--batch-size", "2", "--workers", "1", "--samples", "1", "--min-seconds", "0", "-m", "no_adapt")
    output = run("bench", bundle.path, "--head", "streets", *few, "--out", bench, "--quiet")
    assert "classes: 3 of the head streets" in output
    assert json.loads(bench.read_text(encoding="utf-8"))["bundle"]["head"]["name"] == "streets"


def test_predict_with_a_head(bundle: Bundle, photos: Path) -> None:
    output = run("predict", bundle.path, photos, "--head", "streets", "-m", "no_adapt", "--quiet")
    weight = bundle.load_head("streets").weight
    assert read_rows(output) == predict_by_hand(bundle, photos, weight, NAMES)


@pytest.mark.parametrize("templates", [(), ("--template", "art of {}"), ("--templates", "imagenet-7")])
def test_predict_with_names(bundle: Bundle, photos: Path, templates: tuple[str, ...]) -> None:
    names = "cat, dog, empty street"
    output = run("predict", photos, "--bundle", bundle.path, "--names", names, *templates, "--quiet")
    texts = {"art of {}": ("art of {}",), "imagenet-7": PRESETS["imagenet-7"]}
    made = make_head(bundle, NAMES, texts[templates[1]] if templates else ("a photo of a {}.",))
    assert read_rows(output) == predict_by_hand(bundle, photos, made.weight, NAMES)
    assert sorted(bundle.manifest.heads) == ["animals", "streets"]
    assert Bundle.open(bundle.path) == bundle


def test_predict_among_some_of_the_names(bundle: Bundle, photos: Path, tmp_path: Path) -> None:
    chosen = tmp_path / "classes.txt"
    chosen.write_text("dog\ncat\n", encoding="utf-8")
    few = ("--names", "cat, dog, empty street", "--classes", chosen, "--quiet")
    rows = read_rows(run("predict", bundle.path, photos, *few))
    weight = make_head(bundle, NAMES).weight[:2]
    assert rows == predict_by_hand(bundle, photos, weight, NAMES)


def test_source_statistics_serve_all_heads(bundle: Bundle, photos: Path) -> None:
    output = run("source", bundle.path, photos, "--head", "streets")
    assert "36 of the 36 images" in output
    for head in bundle.manifest.heads:
        assert Bundle.open(bundle.path, head).info("fp32").source is not None


def test_heads_in_python(bundle: Bundle) -> None:
    images = np.zeros((2, 4, 4, 3), np.uint8)
    adapter = Adapter.open(bundle.path, head="streets", method="no_adapt")
    assert adapter.step(images).logits.shape == (2, 3)
    assert Adapter.open(bundle.path, method="no_adapt").step(images).logits.shape == (2, 2)


def test_inspect_shows_texts_and_heads(bundle: Bundle) -> None:
    output = run("inspect", bundle.path)
    assert output.rstrip() == describe_bundle(bundle)
    assert "text.onnx" in output
    assert "up to 77 tokens, logit scale 10; heads (* in use):" in output
    assert "  head      animals * 2 classes (cat, dog) from 'a photo of a {}.'" in output
    assert "  head      streets   3 classes (cat, dog, empty street) from 2 templates like" in output
    (bundle.path / "text.onnx").write_bytes(b"")
    assert "is not the file that was exported" in fail("inspect", bundle.path)


def test_what_is_refused(bundle: Bundle, photos: Path, tmp_path: Path) -> None:
    plain = make(tmp_path).path
    for arguments, reason in (
        (["predict", bundle.path, photos, "--head", "pets"], "has no head 'pets', it has: animals, streets"),
        (["predict", bundle.path, photos, "--head", "streets", "--names", "a, b"], "found both"),
        (["predict", bundle.path, photos, "--template", "a {}"], "go with --names"),
        (["predict", bundle.path, photos, "--names", "cat,,dog"], "found '' for class 1"),
        (["predict", bundle.path, photos, "--names", "cat,cat"], "found 'cat' twice"),
        (["predict", plain, photos, "--names", "cat, dog"], "its classes are part of its graphs"),
        (["predict", plain, photos, "--head", "pets"], "part of its graphs"),
        (["adapt", bundle.path, "--head", "pets", "--dataset", "demo"], "has no head 'pets'"),
    ):
        assert reason in fail(*arguments)
