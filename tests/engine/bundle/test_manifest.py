"""The manifest of a bundle: round trips, other schemas, fields that are missing or wrong."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundle_doubles import HEAD, edit, make, manifest, statistics
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.bundle.description import describe_bundle
from fozo.engine.bundle.manifest import Manifest
from fozo.engine.errors import BundleError
from fozo.engine.runtime.network import Network


def test_manifest_round_trip(tmp_path: Path) -> None:
    bundle = make(tmp_path)
    again = Bundle.open(bundle.path)
    assert again == bundle
    assert again.manifest == replace(manifest(), files=bundle.manifest.files)
    assert Manifest.from_json(bundle.manifest.to_json(), Path("x")) == bundle.manifest
    assert bundle.manifest.to_json() == (bundle.path / "bundle.json").read_bytes()
    assert bundle.sha256 == hashlib.sha256((bundle.path / "bundle.json").read_bytes()).hexdigest()


def test_manifest_without_classes_and_with_source(tmp_path: Path) -> None:
    bundle = make(tmp_path, class_ids=None, class_names=None).with_source("fp32", statistics(), "tests")
    assert Bundle.open(bundle.path) == bundle
    assert bundle.manifest.class_ids is None
    assert bundle.manifest.source["fp32"].origin == "tests"


def test_a_good_bundle_runs(tmp_path: Path) -> None:
    bundle = make(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 3), dtype=np.uint8)
    with Network.open(bundle.path, workers=1) as network:
        outputs = network(images)
    expected = images.astype(np.float64).mean((1, 2))
    np.testing.assert_allclose(outputs.features[:, 1], expected, rtol=1e-6)
    np.testing.assert_allclose(outputs.logits, expected @ HEAD.T, rtol=1e-5)


@pytest.mark.parametrize("kind", ["nothing", "empty folder", "a file", "manifest is a folder"])
def test_no_bundle(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    if kind == "a file":
        path.write_text("{}")
    elif kind == "empty folder":
        path.mkdir()
    elif kind == "manifest is a folder":
        (path / "bundle.json").mkdir(parents=True)
    with pytest.raises(BundleError, match=r"no bundle at .*fozo export"):
        Bundle.open(path)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"3", b'"bundle"', b"\xff\xfe", b"{}", b"[" * 100_000]
)
def test_manifest_that_is_none(content: bytes, tmp_path: Path) -> None:
    bundle = make(tmp_path)
    (bundle.path / "bundle.json").write_bytes(content)
    with pytest.raises(BundleError, match="not a bundle manifest"):
        Bundle.open(bundle.path)


def test_manifest_of_schema_1_has_no_norms_to_tune(tmp_path: Path) -> None:
    bundle = make(tmp_path)

    def age(raw: dict[str, Any]) -> None:
        raw["schema"] = 1
        del raw["norms"]

    edit(bundle, age)
    info = Bundle.open(bundle.path).info("fp32")
    assert (info.tunables, info.norms) == (("prompts",), {})
    with pytest.raises(BundleError, match=r"zoa tunes norms, and the graph of colours .*only: prompts"):
        info.require_tunable("norms", "zoa")
    with Network.open(bundle.path, workers=1) as network:
        assert network(np.zeros((1, 4, 4, 3), np.uint8)).embedding is None


@pytest.mark.parametrize("schema", [0, 4, 999, "1", None])
def test_manifest_of_another_schema(schema: object, tmp_path: Path) -> None:
    bundle = make(tmp_path)
    edit(bundle, lambda raw: raw.update(schema=schema))
    with pytest.raises(BundleError, match=f"schema {schema}"):
        Bundle.open(bundle.path)


OPTIONAL = {"schema", "pull_backs", "head", "patch_mean", "patch_std", "activations"}
FIELDS = sorted(set(json.loads(manifest().to_json())) - OPTIONAL)


@pytest.mark.parametrize("field", FIELDS)
def test_manifest_without_a_field(field: str, tmp_path: Path) -> None:
    bundle = make(tmp_path)
    edit(bundle, lambda raw: raw.pop(field))
    with pytest.raises(BundleError, match=field):
        Bundle.open(bundle.path)


def test_manifest_without_head_names_the_usual_file(tmp_path: Path) -> None:
    bundle = make(tmp_path)
    edit(bundle, lambda raw: raw.pop("head"))
    assert Bundle.open(bundle.path).info("fp32").head_weight.shape == (5, 3)


def test_manifest_without_pull_backs_has_no_gradients(tmp_path: Path) -> None:
    bundle = make(tmp_path)
    edit(bundle, lambda raw: raw.pop("pull_backs"))
    opened = Bundle.open(bundle.path)
    assert opened.manifest.pull_backs == {}
    with pytest.raises(BundleError, match="--gradients"):
        opened.pull_back("fp32")


WRONG: list[tuple[str, object]] = [
    ("preprocessing", None),
    ("preprocessing", []),
    ("preprocessing", {"size": 4, "resize": 4}),
    ("preprocessing", {"size": [4, 4, 4], "resize": 4}),
    ("preprocessing", {"size": [4, 4], "resize": 4, "surprise": 1}),
    ("preprocessing", {"size": [4, 4]}),
    ("head", None),
    ("head", "other.npz"),
    ("layers", "many"),
    ("layers", None),
    ("layers", [2]),
    ("layers", float("inf")),
    ("width", {}),
    ("tokens", "x"),
    ("classes", None),
    ("classes", 4),
    ("prompt_bound", "wide"),
    ("class_ids", 5),
    ("class_ids", ["a"]),
    ("class_names", ["a", "b", "c", "d"]),
    ("graphs", None),
    ("graphs", []),
    ("graphs", "model.onnx"),
    ("graphs", {"fp32": "model.onnx"}),
    ("graphs", {"fp32": {"file": "model.onnx"}}),
    ("source", []),
    ("source", {"fp32": {"file": "x"}}),
    ("files", []),
    ("files", {"model.onnx": 5}),
    ("files", {"model.onnx": {"sha256": "00"}}),
    ("provenance", 5),
    ("provenance", "text"),
]


@pytest.mark.parametrize(("field", "value"), WRONG)
def test_manifest_with_a_field_of_the_wrong_type(field: str, value: object, tmp_path: Path) -> None:
    bundle = make(tmp_path)
    edit(bundle, lambda raw: raw.update({field: value}))
    with pytest.raises(BundleError):
        Bundle.open(bundle.path)


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw["files"]["model.onnx"].update(sha256=5),
        lambda raw: raw["files"]["model.onnx"].update(sha256=None),
        lambda raw: raw["files"]["model.onnx"].update(bytes="many"),
        lambda raw: raw["graphs"]["fp32"].update(file=5),
        lambda raw: raw["graphs"]["fp32"].update(file=None),
        lambda raw: raw["graphs"]["fp32"].update(file=""),
        lambda raw: raw["graphs"]["fp32"].update(file="other.onnx"),
        lambda raw: raw["files"].pop("head.npz"),
        lambda raw: raw.update(graphs={}),
    ],
)
def test_entries_of_the_wrong_kind(change: Callable[[dict[str, Any]], object], tmp_path: Path) -> None:
    bundle = make(tmp_path)
    edit(bundle, change)
    with pytest.raises(BundleError):
        Network.open(bundle.path, workers=1)


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw["preprocessing"].update(resize="32"),
        lambda raw: raw["preprocessing"].update(resize=0),
        lambda raw: raw["preprocessing"].update(interpolation="cubic"),
        lambda raw: raw["files"].pop("model.onnx"),
        lambda raw: raw["graphs"].clear(),
        lambda raw: raw.update(prompt_bound=0),
        lambda raw: raw.update(prompt_bound=float("inf")),
        lambda raw: raw.pop("tunables"),
    ],
)
def test_impossible_manifests(change: Callable[[dict[str, Any]], object], tmp_path: Path) -> None:
    bundle = make(tmp_path)
    edit(bundle, change)
    with pytest.raises(BundleError, match=r"bundle\.json: \S+: .*(expected|must be) .*, found "):
        Bundle.open(bundle.path)


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw.update(model="vit\x1b]0;title\x07"),
        lambda raw: raw.update(class_names=["a", "b\nc", "c", "d", "e"]),
        lambda raw: raw.update(class_ids=["a", "b\u202ec", "c", "d", "e"]),
        lambda raw: raw["graphs"].update({"int8\x1b[2J": raw["graphs"]["fp32"]}),
        lambda raw: raw["provenance"].update(note=[{"deep": "\x9b"}]),
        lambda raw: raw["files"].update({"a\0b": {"sha256": "0", "bytes": 1}}),
    ],
)
def test_names_that_a_terminal_would_obey(change: Callable[[dict[str, Any]], object], tmp_path: Path) -> None:
    bundle = make(tmp_path)
    edit(bundle, change)
    with pytest.raises(BundleError, match="expected plain text, found control characters in") as caught:
        Bundle.open(bundle.path)
    assert str(caught.value).isprintable()


def test_a_manifest_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    bundle = make(tmp_path)
    (bundle.path / "bundle.json").unlink()
    os.mkfifo(bundle.path / "bundle.json")
    with pytest.raises(BundleError, match="a pipe or a device, expected a file"):
        Bundle.open(bundle.path)


@pytest.mark.parametrize("name", ["model.onnx", "head.npz"])
def test_a_file_that_is_a_pipe_is_not_waited_for(name: str, tmp_path: Path) -> None:
    bundle = make(tmp_path)
    (bundle.path / name).unlink()
    os.mkfifo(bundle.path / name)
    with pytest.raises(BundleError, match=rf"cannot read .*{name}.*expected a file"):
        bundle.file(name)


def test_a_file_of_another_size_is_not_read(tmp_path: Path) -> None:
    bundle = make(tmp_path)
    with (bundle.path / "model.onnx").open("ab") as stream:
        stream.truncate(1 << 40)  # a hole, where the system can
    with pytest.raises(BundleError, match=r"expected \d+ bytes with SHA-256 .*, found 1099511627776 bytes;"):
        bundle.file("model.onnx")


def test_a_manifest_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    bundle = make(tmp_path)
    with (bundle.path / "bundle.json").open("ab") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(BundleError, match="expected at most 67,108,864 bytes"):
        Bundle.open(bundle.path)


def test_an_image_size_that_contradicts_the_graph(tmp_path: Path) -> None:
    bundle = make(tmp_path)
    edit(bundle, lambda raw: raw["preprocessing"].update(size=[8, 8], resize=8))
    with pytest.raises(
        BundleError, match=r"does not fit its manifest: expected images of axes \[8, 8, 3\], found \["
    ):
        Network.open(bundle.path, workers=1)


def test_a_bundle_that_could_not_be_read_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="control characters"):
        make(tmp_path, class_names=("a", "b", "c", "d", "e\n"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("change", [{"mean": [10**400]}, {"options": [["mean"]]}, {"std": "half"}])
def test_a_bundle_with_strange_provenance_can_be_described(change: dict[str, Any], tmp_path: Path) -> None:
    provenance = {"mean": [0.5], "std": [0.5], "options": [], **change}
    assert "images    unknown" in describe_bundle(make(tmp_path, provenance=provenance))
