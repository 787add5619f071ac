"""Commands open a network with gradients where a method needs them, and say so where a bundle has none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from bundle_doubles import edit, replace_file
from command_doubles import fails, read_json, run_command, succeeds
from doubles import save_class_folders
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.model import ImageArray
from fozo.eval.bench.backends import Backend, Cell
from fozo.eval.bench.samples import take_sample


@pytest.fixture(scope="module")
def images(random_images: Callable[..., ImageArray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_class_folders(tmp_path_factory.mktemp("images"), list(random_images(20)))


def test_methods_with_gradients_run_beside_others(bundle_path: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    data = ["--dataset", "imagefolder", "--data", images, "--batch-size", "5"]
    options = ["-m", "no_adapt", "-m", "tent", "-m", "align=align:gradient_share=1", "--out", out]
    result = run_command("adapt", bundle_path, *data, *options)  # it warns: the images are random
    assert result.returncode == 0, result.stderr
    methods = read_json(out)["runs"][0]["domains"][0]["methods"]
    steps = {name: (part["forwards"], part["pull_backs"]) for name, part in methods.items()}
    assert steps == {"no_adapt": (4, 0), "tent": (0, 4), "align": (4, 4)}


def test_prediction_with_gradients(bundle_path: Path, images: Path) -> None:
    assert len(succeeds("predict", bundle_path, images, "-m", "tent").splitlines()) == 21


def test_time_of_a_method_with_gradients(bundle_path: Path) -> None:
    assert take_sample(Bundle.open(bundle_path), Cell(Backend("fp32"), "tent", 2, 1), 0.0).steps == 1


def test_bundle_without_gradients(bundle_path: Path, images: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(bundle_path, tmp_path / "bundle"))
    raw = json.loads((bundle / "bundle.json").read_bytes())
    raw.update(pull_backs={}, source={})
    (bundle / "bundle.json").write_text(json.dumps(raw))
    message = fails("predict", bundle, images, "-m", "tent")
    assert "export it again with --gradients" in message


def test_inspection_says_what_the_figures_are_of(int8_bundle_path: Path) -> None:
    lines = [line for line in succeeds("inspect", int8_bundle_path).splitlines() if "gradients" in line]
    fp32, int8 = lines
    assert "of the largest gradient from PyTorch" in fp32
    assert "logits at most 0 from int8, cosine of the gradients to those of fp32 0.9" in int8


def test_inspection_opens_graphs_of_gradients_as_methods_do(bundle_path: Path, tmp_path: Path) -> None:
    """A graph without gradients has nothing forbidden in it; only opening it tells."""
    bundle = Bundle.open(shutil.copytree(bundle_path, tmp_path / "bundle"))
    replace_file(bundle, "pull-back.onnx", bundle.graph("fp32").read_bytes())
    edit(bundle, lambda raw: raw.update(source={}))
    assert "pull-back.onnx" in fails("inspect", bundle.path)
