"""Vocabularies in CLIP's format, and a bundle with a text graph in closed form: for the tests of texts."""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundle_doubles import clip_graph, manifest
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.bundle.create import create
from fozo.engine.bundle.preprocessing import Preprocessing
from fozo.engine.bundle.text_entries import TextEntry
from fozo.engine.files import hash_file, hash_texts
from fozo.engine.model import FloatArray
from fozo.engine.runtime.class_head import build_head
from fozo.engine.runtime.text_encoder import TextEncoder
from fozo.engine.text.tokenizer import Tokenizer
from fozo.engine.text.vocabulary import PUBLISHED_START, list_byte_symbols

onnx = pytest.importorskip("onnx", reason="small graphs are written with onnx")

Merge = tuple[str, str]
# Merges of the published vocabulary by rank, as far as the sentences of the published vectors need them.
PUBLISHED_MERGES: Mapping[int, Merge] = {
    1: ("t", "h"),
    12: ("e", "n"),
    19: ("t", "o</w>"),
    21: ("i", "s</w>"),
    24: ("a", "t</w>"),
    27: ("o", "f</w>"),
    77: ("th", "is</w>"),
    78: ("t", "s</w>"),
    94: ("h", "o"),
    122: ("c", "h</w>"),
    235: ("e", "c"),
    304: ("p", "ho"),
    613: ("pho", "to</w>"),
    637: ("t", "en"),
    835: ("j", "ec"),
    899: ("o", "b"),
    1856: ("c", "at</w>"),
    7458: ("ob", "jec"),
    13258: ("objec", "ts</w>"),
}


def write_vocabulary(path: Path, merges: Sequence[Merge], title: str = '"#version: 0.2') -> Path:
    lines = [title, *(f"{first} {second}" for first, second in merges)]
    path.write_bytes(gzip.compress("\n".join([*lines, ""]).encode(), mtime=0))
    return path


def write_published_excerpt(path: Path) -> Path:
    """Write a vocabulary of the published size with `PUBLISHED_MERGES` and pairs of rare bytes."""
    rare = list(list_byte_symbols().values())[94:]  # not of ASCII
    fill = ((first, second) for first in rare for second in [*rare, *(f"{symbol}</w>" for symbol in rare)])
    merges = [PUBLISHED_MERGES.get(rank) or next(fill) for rank in range(PUBLISHED_START - 512)]
    return write_vocabulary(path, merges)


def published_vocabulary() -> Path:
    """Return the published vocabulary of open_clip, or skip the test and say why."""
    open_clip = pytest.importorskip("open_clip", reason="the published tokenizer is open_clip's")
    return Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"


# --- a text graph in closed form ---

WIDTH, EMBEDDING, SCALE = 4, 3, 10.0
MERGES: tuple[Merge, ...] = (("a", "t</w>"), ("c", "at</w>"), ("d", "o"), ("do", "g</w>"))
START = 512 + len(MERGES)


def draw_tower(seed: int = 0) -> tuple[FloatArray, FloatArray]:
    """Return a table of token vectors `[V, WIDTH]` and a projection `[WIDTH, EMBEDDING]`."""
    generator = np.random.default_rng(seed)
    table = generator.normal(size=(START + 2, WIDTH)).astype(np.float32)
    return table, generator.normal(size=(WIDTH, EMBEDDING)).astype(np.float32)


def text_graph(embeddings: str = "float[R,T,3] embeddings", tokens: str = "int64[T,L] tokens") -> bytes:
    """Return a text graph that projects the sum of a context and of the tokens of a text."""
    table, projection = draw_tower()
    text = f"""<ir_version: 9, opset_import: ["" : 20]>
    g ({tokens}, int64[T] lengths, float[R,M,4] contexts) => ({embeddings}, float[T,L,4] embedded)
    <float[{len(table)},4] table = {{{",".join(map(str, table.ravel()))}}},
     float[4,3] projection = {{{",".join(map(str, projection.ravel()))}}}, int64[1] one = {{1}}>
    {{
        embedded = Gather(table, tokens)
        words = ReduceSum<keepdims=0>(embedded, one)
        front = ReduceSum<keepdims=1>(contexts, one)
        sums = Add(front, words)
        projected = MatMul(sums, projection)
        embeddings = LpNormalization<axis=-1, p=2>(projected)
    }}"""
    content: bytes = onnx.parser.parse_model(text).SerializeToString()
    return content


def embed_by_hand(tokenizer: Tokenizer, sentence: str, context: FloatArray | None = None) -> FloatArray:
    """Return the unit embedding that `text_graph` gives a sentence, in float64."""
    table, projection = draw_tower()
    total = table[[*tokenizer.encode(sentence), START + 1]].astype(np.float64).sum(0)
    total += 0 if context is None else context.astype(np.float64).sum(0)
    projected = total @ projection
    return np.asarray(projected / np.linalg.norm(projected))


def make_text_bundle(
    folder: Path,
    names: Sequence[str] = ("cat", "dog"),
    templates: Sequence[str] = ("a photo of a {}.",),
    graph: bytes | None = None,
    merges: Sequence[Merge] = MERGES,
    *,
    pixels: bool = False,
    side: int = 4,
) -> Bundle:
    """Return a bundle for small square images and texts, whose head `animals` was made from the names."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / "source.onnx", write_vocabulary(folder / "source.gz", merges)
    paths[0].write_bytes(text_graph() if graph is None else graph)
    entry = TextEntry(
        "text.onnx",
        "vocabulary.txt.gz",
        WIDTH,
        77,
        EMBEDDING,
        SCALE,
        START,
        START + 1,
        1e-6,
        {"tower": "sums"},
    )
    with TextEncoder(*paths, entry, workers=1) as encoder:
        head = build_head(encoder, EMBEDDING, names, templates)
    described = head.describe("head-animals.npz", hash_texts(*map(hash_file, paths)))
    files = {"model.onnx": clip_graph(pixels=pixels, side=side), "head-animals.npz": head.to_npz()}
    files |= {"text.onnx": paths[0].read_bytes(), "vocabulary.txt.gz": paths[1].read_bytes()}
    writers = {name: partial(Path.write_bytes, data=data) for name, data in files.items()}
    tunables: dict[str, tuple[str | int, ...]] = {"prompts": ("R", "P", 3)}
    tunables |= {"pixels": ("Q", side, side, 3)} if pixels else {}
    facts: dict[str, Any] = {"preprocessing": Preprocessing((side, side), side + 1, "bilinear")}
    facts |= {"patch_mean": 0.01, "patch_std": 0.1, "provenance": {"std": [0.5, 0.25, 0.2]}} if pixels else {}
    described_bundle = manifest(
        **facts, text=entry, heads={"animals": described}, tunables=tunables
    ).use_head(described)
    return create(folder / "clip", described_bundle, writers)
