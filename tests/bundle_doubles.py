"""A small bundle whose graph is known, and ways to damage it: for the tests of bundles."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.bundle.create import create
from fozo.engine.bundle.head import Head
from fozo.engine.bundle.manifest import GraphEntry, Manifest
from fozo.engine.bundle.preprocessing import Preprocessing
from fozo.engine.bundle.text_entries import TextEntry
from fozo.engine.files import hash_texts, to_npz
from fozo.engine.model import SourceStatistics

onnx = pytest.importorskip("onnx", reason="small graphs are written with onnx")

HEAD = (np.arange(15).reshape(5, 3) / 10).astype(np.float32)
BIAS = np.zeros(5, np.float32)


def graph(
    images: str = "uint8[N,4,4,3] images",
    prompts: str = "float[R,P,3] prompts",
    outputs: str = "float[N,5] logits, float[N,2,3] features",
    axes: str = "1,2",
    tail: str = "",
) -> bytes:
    """Return a valid graph of the contract: both features are the mean colour, the head is `HEAD`."""
    values = ",".join(map(str, HEAD.T.ravel()))
    text = f"""<ir_version: 9, opset_import: ["" : 20]>
    g ({images}, {prompts}) => ({outputs})
    <float[3,5] w = {{{values}}}, int64[2] axes = {{{axes}}}, int64[1] one = {{1}}>
    {{
        x = Cast<to=1>({images.split()[-1]})
        m = ReduceMean<keepdims=0>(x, axes)
        f = Unsqueeze(m, one)
        features = Concat<axis=1>(f, f)
        logits = MatMul(m, w)
        {tail}
    }}"""
    content: bytes = onnx.parser.parse_model(text).SerializeToString()
    return content


def manifest(**changes: Any) -> Manifest:
    plain = Manifest(
        model="colours",
        preprocessing=Preprocessing((4, 4), 5, "bilinear"),
        layers=2,
        width=3,
        tokens=17,
        feature_width=3,
        classes=5,
        prompt_bound=0.1,
        tunables={"prompts": ("R", "P", 3)},
        class_ids=("a", "b", "c", "d", "e"),
        class_names=("eins", "zwei", "drei", "vier", "fünf"),
        graphs={"fp32": GraphEntry("model.onnx", 20, 1e-6)},
        provenance={"weights": "none", "mean": [0.5, 0.5, 0.5]},
    )
    return replace(plain, **changes)


def make(folder: Path, content: bytes | None = None, head: bytes | None = None, **changes: Any) -> Bundle:
    content = graph() if content is None else content
    head = to_npz(weight=HEAD, bias=BIAS) if head is None else head
    return create(
        folder / "bundle",
        manifest(**changes),
        {
            "model.onnx": lambda path: path.write_bytes(content),
            "head.npz": lambda path: path.write_bytes(head),
        },
    )


def edit(bundle: Bundle, change: Callable[[dict[str, Any]], object]) -> None:
    path = bundle.path / "bundle.json"
    raw = json.loads(path.read_bytes())
    change(raw)
    path.write_text(json.dumps(raw))


def replace_file(bundle: Bundle, name: str, content: bytes) -> None:
    """Change a file and its entry in the manifest, as one who wants to do harm would."""
    (bundle.path / name).write_bytes(content)
    entry = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    edit(bundle, lambda raw: raw["files"].update({name: entry}))


def statistics(seed: int = 0) -> SourceStatistics:
    generator = np.random.default_rng(seed)
    mean, std = (generator.random((2, 3)).astype(np.float32) for _ in range(2))
    return SourceStatistics(mean, std, 64)


def listing(bundle: Bundle) -> list[str]:
    return sorted(path.name for path in bundle.path.iterdir())


TEXT = TextEntry("text.onnx", "vocabulary.txt.gz", 4, 77, 3, 10.0, 1, 2, 1e-6)


def classes_of(*names: str, seed: int = 0, context: int | None = None) -> Head:
    """Return classes with random weights of length 10, and perhaps a context of so many vectors."""
    generator = np.random.default_rng(seed)
    weight = generator.normal(size=(len(names), 3))
    weight *= 10 / np.linalg.norm(weight, axis=1, keepdims=True)
    vectors = None if context is None else generator.normal(size=(context, 4)).astype(np.float32)
    templates = ("a photo of a {}.",) if context is None else ("{}.",)
    return Head(weight.astype(np.float32), names, names, templates, vectors, {"note": "random"})


def clip_graph(
    classifier: str = "float[K,3] classifier",
    logits: str = "float[N,K] logits",
    *,
    pixels: bool = False,
    side: int = 4,
) -> bytes:
    """Return a graph whose two features are the mean colour and its direction, and whose head is an input.

    With `pixels`, these are added to the images, and prompts to the mean colour.
    """
    addend, colours = (
        f", float[Q,{side},{side},3] pixels" if pixels else "",
        "m = ReduceMean<keepdims=0>(x, axes)",
    )
    if pixels:
        colours = """levels = Mul(pixels, white)
        sum = Add(x, levels)
        clipped = Clip(sum, black, white)
        plain = ReduceMean<keepdims=0>(clipped, axes)
        prompt = ReduceSum<keepdims=0>(prompts, one)
        m = Add(plain, prompt)"""
    text = f"""<ir_version: 9, opset_import: ["" : 20]>
    g (uint8[N,{side},{side},3] images, float[R,P,3] prompts{addend}, {classifier}) =>
        ({logits}, float[N,2,3] features)
    <int64[2] axes = {{1,2}}, int64[1] one = {{1}}, float white = {{255}}, float black = {{0}}>
    {{
        x = Cast<to=1>(images)
        {colours}
        u = LpNormalization<axis=-1, p=2>(m)
        f = Unsqueeze(m, one)
        g = Unsqueeze(u, one)
        features = Concat<axis=1>(f, g)
        logits = Gemm<transB=1>(u, classifier)
    }}"""
    content: bytes = onnx.parser.parse_model(text).SerializeToString()
    return content


def make_clip(folder: Path, content: bytes | None = None, **changes: Any) -> Bundle:
    """Return a bundle whose classes are made from texts; its text graph is none, and is never opened."""
    head, path = classes_of("cat", "dog"), folder / "clip"
    files = {
        "model.onnx": clip_graph() if content is None else content,
        "head-animals.npz": head.to_npz(),
        "text.onnx": b"text",
        "vocabulary.txt.gz": b"words",
    }
    digest = hash_texts(
        *(hashlib.sha256(files[name]).hexdigest() for name in ("text.onnx", "vocabulary.txt.gz"))
    )
    entry = head.describe("head-animals.npz", digest)
    plain = manifest(text=TEXT, heads={"animals": entry}).use_head(entry)
    writers = {name: partial(Path.write_bytes, data=data) for name, data in files.items()}
    return create(path, replace(plain, **changes), writers)
