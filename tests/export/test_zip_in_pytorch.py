"""ZIP against a second version in PyTorch with open_clip's own text tower, from the same random numbers.

The second version follows the paper's equations literally: Fastfood by butterflies, vector by vector, and
one batch under one prompt at a time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from clip_doubles import EMBEDDING, END, START, draw_texts, embed_words, make_clip, pad_texts, text_tower_of
from fozo.engine.model import FloatArray
from fozo.engine.search.fastfood import Fastfood, draw_fastfood
from fozo.engine.search.spsa import draw_segmented_direction
from fozo.engine.tuning.few_shot_loss import compute_losses
from fozo.engine.tuning.low_rank_context import make_low_rank_context
from fozo.engine.tuning.zip import Zip

torch = pytest.importorskip("torch", reason="export needs PyTorch")

from fozo.export.text_graph import build_text_graph  # noqa: E402
from fozo.export.text_model import read_text_tower  # noqa: E402

WIDTH, VECTORS, INPUTS, RANK, SCALE, SEED, STEPS = 48, 4, 5, 2, 120.0, 3, 20


def test_twenty_steps_are_those_of_pytorch(tmp_path: Path) -> None:
    generator, model = np.random.default_rng(0), make_clip()
    texts = draw_texts(generator, [3, 1, 5, 2])
    start = generator.normal(0, 0.02, (VECTORS, WIDTH)).astype(np.float32)
    features = generator.normal(size=(12, EMBEDDING)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    labels = generator.integers(0, len(texts), 12)
    onnx.save(build_text_graph(read_text_tower(model, START, END)), tmp_path / "text.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "text.onnx", providers=["CPUExecutionProvider"])

    def losses(contexts: FloatArray) -> FloatArray:
        units = session.run(["embeddings"], {**pad_texts(texts), "contexts": contexts})[0]
        return compute_losses(features, labels, SCALE * units)

    space = make_low_rank_context((VECTORS, WIDTH), SEED, VECTORS * INPUTS, RANK)
    method = Zip(space)
    state, lengths = method.init(start, SEED), []
    for _ in range(STEPS):
        state, record = method.step(state, losses)
        lengths.append(record.gradient_norm)
    context, parameters, norms = run_in_pytorch(
        model, texts, start, torch.from_numpy(features), torch.from_numpy(labels)
    )
    np.testing.assert_allclose(lengths, norms, rtol=5e-3)
    assert max(norms) > np.sqrt(space.size) > min(norms)  # some of the steps are clipped
    np.testing.assert_allclose(state.parameters, parameters, atol=2e-4)
    np.testing.assert_allclose(state.values, context, atol=2e-4)
    assert np.abs(state.values - start).max() > 100 * 2e-4


def run_in_pytorch(
    model: Any, texts: list[list[int]], start: FloatArray, features: Any, labels: Any
) -> tuple[FloatArray, FloatArray, list[float]]:
    """Return context, parameters, and the length of the gradient in each step."""
    fastfoods = [draw_fastfood(np.random.default_rng([SEED, 0, 2 + i]), WIDTH) for i in range(VECTORS)]
    v_start = torch.from_numpy(np.random.default_rng([SEED, 0, 1]).standard_normal(INPUTS * RANK))
    sizes = [VECTORS * RANK, RANK, INPUTS * RANK, INPUTS]
    values = torch.cat([torch.zeros(sizes[0]), torch.ones(RANK), v_start, torch.zeros(INPUTS)]).double()

    def make_context(flat: Any) -> Any:
        u, s, v, shared = torch.split(flat, sizes)
        matrix = u.reshape(VECTORS, RANK) @ torch.diag(s) @ v.reshape(INPUTS, RANK).T + shared
        rows = [project(fastfood, row) for fastfood, row in zip(fastfoods, matrix, strict=True)]
        return (torch.from_numpy(start) + torch.stack(rows)).float()

    def compute_loss(flat: Any) -> float:
        logits = SCALE * features @ embed_classes(model, make_context(flat), texts).T
        return float(torch.nn.functional.cross_entropy(logits, labels))

    norms = []
    with torch.no_grad():
        for t in range(1, STEPS + 1):
            size, total = 0.01 / t**0.1, torch.zeros(len(values)).double()
            for pair in range(5):
                delta = torch.from_numpy(draw_segmented_direction(SEED, t - 1, pair, len(values))).double()
                difference = compute_loss(values + size * delta) - compute_loss(values - size * delta)
                total += difference / (2 * size * delta)
            gradient = total / 5
            norms.append(float(gradient.norm()))
            if gradient.norm() >= len(values) ** 0.5:
                gradient = gradient * len(values) ** 0.5 / gradient.norm()
            values = values - 0.01 / (t + 1) ** 0.4 * gradient
    return make_context(values).numpy(), values.numpy(), norms


def project(fastfood: Fastfood, row: Any) -> Any:
    """Project values by butterflies."""
    width = len(fastfood.signs)
    padded = torch.zeros(width).double()
    padded[: len(row)] = row
    mixed = transform(padded * torch.from_numpy(fastfood.signs))[torch.from_numpy(fastfood.order)]
    gains = torch.from_numpy(fastfood.gains)
    mixed = transform(gains * mixed)[:WIDTH]
    return mixed / ((width * gains.square().sum()).sqrt() * (WIDTH / width) ** 0.5)


def transform(values: Any) -> Any:
    """Transform by halves, recursively."""
    if len(values) == 1:
        return values
    first, second = values.chunk(2)
    return torch.cat([transform(first + second), transform(first - second)])


def embed_classes(model: Any, context: Any, texts: list[list[int]]) -> Any:
    """Return unit embeddings `[K, E]` by open_clip's modules."""
    tower, rows = text_tower_of(model), []
    sentences = [[START], *texts]
    first, *others = (torch.from_numpy(embed_words(model, np.asarray(ids, np.int64))) for ids in sentences)
    for words in others:
        x = torch.cat([first, context, words])
        end = len(x) - 1
        padding = torch.from_numpy(embed_words(model, np.zeros(77 - len(x), np.int64)))
        x = torch.cat([x, padding])[None] + tower.positional_embedding
        x = tower.ln_final(tower.transformer(x, attn_mask=tower.attn_mask))[:, end] @ tower.text_projection
        rows.append(torch.nn.functional.normalize(x, dim=-1)[0])
    return torch.stack(rows)
