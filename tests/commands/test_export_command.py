"""`fozo export`, `source` and `inspect` as real processes, with good and bad bundles."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from command_doubles import (
    fails,
    save_noise_images,
    succeeds,
)


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
    images = save_noise_images(tmp_path / "images", 40)
    assert "at least 32 images" in fails("source", copy, save_noise_images(tmp_path / "few", 31))
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


def test_bundles_that_cannot_be_used(bundle: Path, tmp_path: Path) -> None:
    out = ["--dataset", "demo", "--out", tmp_path / "results.json"]
    assert "no bundle at" in fails("adapt", tmp_path / "nowhere", *out)
    assert "no bundle at" in fails("adapt", tmp_path, *out)
    assert "no bundle at" in fails("inspect", cwd=tmp_path)
    assert "no bundle at" in fails("source", tmp_path / "nowhere", save_noise_images(tmp_path / "images", 32))
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


@pytest.mark.parametrize("command", ["source", "export"])
def test_a_negative_seed_is_refused_before_the_work(command: str, bundle: Path, tmp_path: Path) -> None:
    save_noise_images(tmp_path / "data", 40)
    arguments = {
        "source": ["source", bundle, tmp_path / "data", "--seed", -1],
        "export": ["export", "--model", "fozo_demo_vit", "--source", tmp_path / "data", "--seed", -1],
    }[command]
    assert "-1 is not in the range" in fails(*arguments, cwd=tmp_path)
    assert not (tmp_path / "bundle").exists()
