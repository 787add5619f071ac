"""Files of a bundle: damage of every kind, creation that never loses the old bundle."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundle_doubles import BIAS, HEAD, edit, graph, make, manifest, replace_file
from fozo.engine.bundle.create import create
from fozo.engine.errors import BundleError, OutputError
from fozo.engine.files import to_npz
from fozo.engine.runtime.network import Network


@pytest.mark.parametrize("name", ["model.onnx", "head.npz"])
@pytest.mark.parametrize("damage", ["truncated", "emptied", "longer", "one bit", "missing", "a folder"])
def test_damaged_files(name: str, damage: str, tmp_path: Path) -> None:
    bundle = make(tmp_path)
    path = bundle.path / name
    content = path.read_bytes()
    path.unlink()
    if damage == "one bit":
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    elif damage == "a folder":
        path.mkdir()
    elif damage != "missing":
        path.write_bytes({"truncated": content[:-9], "emptied": b"", "longer": content + b"\0"}[damage])
    with pytest.raises(BundleError, match=name):
        Network.open(bundle.path, workers=1)


def test_swapped_files(tmp_path: Path) -> None:
    bundle = make(tmp_path)
    (bundle.path / "model.onnx").replace(bundle.path / "x")
    (bundle.path / "head.npz").replace(bundle.path / "model.onnx")
    (bundle.path / "x").replace(bundle.path / "head.npz")
    for name in ("model.onnx", "head.npz"):
        with pytest.raises(BundleError, match=r"not the file that was exported"):
            bundle.file(name)


@pytest.mark.parametrize("name", ["../secret", "sub/secret", "..", ".", "", "/etc/hostname", "sub/../secret"])
def test_files_outside_the_folder_are_not_read(name: str, tmp_path: Path) -> None:
    bundle = make(tmp_path)
    (bundle.path / "sub").mkdir()
    content = graph()
    for place in (tmp_path / "secret", bundle.path / "sub" / "secret", bundle.path / "secret"):
        place.write_bytes(content)
    entry = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    edit(bundle, lambda raw: raw["files"].update({name: entry}))
    edit(bundle, lambda raw: raw["graphs"]["fp32"].update(file=name))
    with pytest.raises(BundleError):
        Network.open(bundle.path, workers=1)


def test_unlisted_file(tmp_path: Path) -> None:
    bundle = make(tmp_path)
    (bundle.path / "extra.npz").write_bytes(b"x")
    with pytest.raises(BundleError, match="lists no file"):
        bundle.file("extra.npz")


def test_unknown_precision(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="has no int8 graph, it has: fp32"):
        Network.open(make(tmp_path), "int8")


def saved(array: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


def saved_npz(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("raise SystemExit('code was run')",)


BAD_HEADS: dict[str, bytes] = {
    "transposed": to_npz(weight=HEAD.T, bias=BIAS),
    "too few classes": to_npz(weight=HEAD[:4], bias=BIAS),
    "float64": to_npz(weight=HEAD.astype(np.float64), bias=BIAS),
    "nan": to_npz(weight=np.where(HEAD == 0, np.nan, HEAD).astype(np.float32), bias=BIAS),
    "inf": to_npz(weight=np.where(HEAD == 0, np.inf, HEAD).astype(np.float32), bias=BIAS),
    "no weight": to_npz(bias=BIAS),
    "objects": saved_npz(weight=np.array([Evil()], dtype=object), bias=BIAS),
    "pickle": pickle.dumps(Evil()),
    "npy": saved(HEAD),
    "empty": b"",
    "text": b"no archive",
    "truncated": to_npz(weight=HEAD, bias=BIAS)[:-30],
    "integers": to_npz(weight=HEAD.astype(np.int64), bias=BIAS),
}


@pytest.mark.parametrize("kind", BAD_HEADS)
def test_bad_head(kind: str, tmp_path: Path) -> None:
    bundle = make(tmp_path)
    replace_file(bundle, "head.npz", BAD_HEADS[kind])
    with pytest.raises(BundleError, match=r"head\.npz"):
        Network.open(bundle.path, workers=1)


BAD_GRAPHS: dict[str, Callable[[], bytes]] = {
    "image name": lambda: graph(images="uint8[N,4,4,3] pixels"),
    "image type": lambda: graph(images="float[N,4,4,3] images"),
    "image rank 2": lambda: graph(images="uint8[N,48] images", axes="1,1"),
    "image rank 5": lambda: graph(
        images="uint8[N,4,4,3,3] images", outputs="float[N,5] logits, float[N,2,3] features", axes="1,2"
    ),
    "dynamic image": lambda: graph(images="uint8[N,H,W,3] images"),
    "prompt name": lambda: graph(prompts="float[R,P,3] tokens"),
    "prompt type": lambda: graph(prompts="double[R,P,3] prompts"),
    "prompt width": lambda: graph(prompts="float[R,P,4] prompts"),
    "prompt rank": lambda: graph(prompts="float[R,3] prompts"),
    "one more input": lambda: graph(prompts="float[R,P,3] prompts, float[1] more"),
    "output name": lambda: graph(
        outputs="float[N,5] scores, float[N,2,3] features", tail="scores = Identity(logits)"
    ),
    "one output less": lambda: graph(outputs="float[N,5] logits"),
    "one output more": lambda: graph(outputs="float[N,5] logits, float[N,2,3] features, float[N,3] m"),
    "four channels": lambda: graph(images="uint8[N,4,4,4] images", axes="1,2"),
    "no onnx": lambda: b"this is no ONNX file",
    "empty": lambda: b"",
}


@pytest.mark.parametrize("kind", BAD_GRAPHS)
def test_graph_that_breaks_the_contract(kind: str, tmp_path: Path) -> None:
    bundle = make(tmp_path, BAD_GRAPHS[kind]())
    with pytest.raises(BundleError) as caught:
        Network.open(bundle.path, workers=1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("changes", [{"layers": 3}, {"width": 4}, {"classes": 6}, {"feature_width": 6}])
def test_graph_that_does_not_fit_the_manifest(changes: dict[str, Any], tmp_path: Path) -> None:
    shape = (changes.get("classes", 5), changes.get("feature_width", 3))
    head = to_npz(weight=np.zeros(shape, np.float32), bias=np.zeros(shape[0], np.float32))
    bundle = make(tmp_path, head=head, class_ids=None, class_names=None, **changes)
    with pytest.raises(BundleError, match="does not fit its manifest"):
        Network.open(bundle.path, workers=1)


def test_create_leaves_nothing_when_a_writer_fails(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="No space left"):
        create(tmp_path / "bundle", manifest(), {"model.onnx": fail})
    assert not list(tmp_path.iterdir())


def test_equal_arrays_give_equal_bytes() -> None:
    assert to_npz(weight=HEAD) == to_npz(weight=HEAD.copy(order="F"))
