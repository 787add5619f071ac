"""Gradients through the text graph against open_clip's own text tower, and SAPT against a second version."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from clip_doubles import (
    EMBEDDING,
    END,
    START,
    draw_texts,
    embed_words,
    make_clip,
    make_custom_clip,
    pad_texts,
    text_tower_of,
)
from fozo.engine.errors import ExportError
from fozo.engine.model import FloatArray
from fozo.engine.tuning.cosine_schedule import CosineSchedule
from fozo.engine.tuning.sapt import Sapt

torch = pytest.importorskip("torch", reason="export needs PyTorch")

from fozo.export.half_storage import store_as_half  # noqa: E402
from fozo.export.text_gradient import TextGradient  # noqa: E402
from fozo.export.text_graph import build_text_graph  # noqa: E402
from fozo.export.text_model import read_text_tower  # noqa: E402
from fozo.export.torch_graph import TorchGraph  # noqa: E402

WIDTH, WORDS, SCALE = 48, 4, 20.0
CLIPS: dict[str, Callable[[], Any]] = {
    "gelu": make_clip,
    "quick_gelu": partial(make_clip, quick_gelu=True),
    "gelu_tanh": partial(make_clip, text={"act_kwargs": {"approximate": "tanh"}}),
    "one_block": partial(make_clip, text={"layers": 1}),
    "large_epsilon": partial(make_clip, text={"norm_kwargs": {"eps": 0.1}}),
    "projection_bias": partial(make_custom_clip, text={"proj_bias": True}),
}


def save_graph(model: Any, folder: Path) -> Path:
    onnx.save(build_text_graph(read_text_tower(model, START, END)), folder / "text.onnx")
    return folder / "text.onnx"


def embed_classes(model: Any, context: Any, texts: list[list[int]]) -> Any:
    """Return unit embeddings `[K, E]` by open_clip's modules, with gradients for the context `[M, D]`."""
    tower, rows = text_tower_of(model), []
    start = torch.from_numpy(embed_words(model, np.asarray([START], np.int64)))
    for ids in texts:
        words = torch.from_numpy(embed_words(model, np.asarray(ids, np.int64)))
        x = torch.cat([start, context, words])
        padding = torch.from_numpy(embed_words(model, np.zeros(77 - len(x), np.int64)))
        end = len(x) - 1
        x = torch.cat([x, padding])[None] + tower.positional_embedding
        x = tower.ln_final(tower.transformer(x, attn_mask=tower.attn_mask))[:, end]
        projection = tower.text_projection
        x = x @ projection if isinstance(projection, torch.Tensor) else projection(x)
        rows.append(torch.nn.functional.normalize(x, dim=-1)[0])
    return torch.stack(rows)


def draw_problem(seed: int = 0) -> tuple[list[list[int]], FloatArray, FloatArray, Any]:
    """Return texts of six classes, a context, unit features of eight images, and their labels."""
    generator = np.random.default_rng(seed)
    texts = draw_texts(generator, [3, 1, 3, 5, 1, 2])
    context = generator.normal(0, 1, (WORDS, WIDTH)).astype(np.float32)
    features = generator.normal(size=(8, EMBEDDING)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return texts, context, features, generator.integers(0, 6, 8)


def reference_slope(model: Any, texts: list[list[int]], context: Any, features: Any, labels: Any) -> Any:
    logits = SCALE * torch.from_numpy(features) @ embed_classes(model, context, texts).T
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels))
    return loss, torch.autograd.grad(loss, context)[0]


@pytest.mark.parametrize("name", CLIPS)
def test_slopes_are_those_of_open_clip(name: str, tmp_path: Path) -> None:
    model = CLIPS[name]()
    texts, context, features, labels = draw_problem()
    tower = TextGradient(save_graph(model, tmp_path), texts, SCALE)
    loss, gradient = tower.compute_slope(context, features, labels)
    variable = torch.tensor(context, requires_grad=True)
    expected_loss, expected = reference_slope(model, texts, variable, features, labels)
    assert loss == pytest.approx(expected_loss.item(), rel=1e-4)
    scale = np.abs(expected.numpy()).max()
    np.testing.assert_allclose(gradient, expected.numpy(), atol=1e-3 * scale)
    assert gradient.dtype == np.float64
    embeddings = embed_classes(model, variable, texts).detach().numpy()
    assert tower.verify(context, embeddings) < 1e-5


def test_three_steps_of_sapt_are_those_of_a_second_implementation(tmp_path: Path) -> None:
    """The second one has open_clip's modules, autograd through the published loss, and PyTorch's SGD."""
    model = make_clip(quick_gelu=True)
    texts, context, features, labels = draw_problem(1)
    tower = TextGradient(save_graph(model, tmp_path), texts, SCALE)
    schedule = CosineSchedule(0.02, 3, 1)
    method = Sapt(schedule, sharpness=0.6, radius=0.2)
    state = method.init(context, 0)
    parameter = torch.nn.Parameter(torch.tensor(context))
    optimiser = torch.optim.SGD([parameter], lr=1, momentum=0.9, weight_decay=5e-4)
    for step in range(3):
        state, record = method.step(state, lambda c: tower.compute_slope(c, features, labels))
        plain, gradient = reference_slope(model, texts, parameter, features, labels)
        ascent = 0.2 * gradient / gradient.norm()
        steep, steep_gradient = reference_slope(
            model, texts, (parameter + ascent).detach().requires_grad_(), features, labels
        )
        parameter.grad = 0.4 * gradient + 0.6 * steep_gradient
        optimiser.param_groups[0]["lr"] = schedule.get_rate(step)
        optimiser.step()
        assert record.loss == pytest.approx(plain.item(), rel=1e-4)
        assert record.sharpness == pytest.approx((steep - plain).item(), rel=1e-2)
        moved = np.abs(parameter.detach().numpy() - context).max()
        np.testing.assert_allclose(state.values, parameter.detach().numpy(), atol=2e-3 * moved)
    assert np.abs(state.values - context).max() > 1e-3


def test_padding_of_features_is_ignored(tmp_path: Path) -> None:
    texts, context, features, labels = draw_problem()
    tower = TextGradient(save_graph(make_clip(), tmp_path), texts, SCALE)
    padded = np.concatenate([features, np.zeros((8, 40), np.float32)], axis=1)
    first, second = (tower.compute_slope(context, x, labels) for x in (features, padded))
    assert first[0] == second[0]
    np.testing.assert_array_equal(first[1], second[1])


def test_slopes_are_repeatable(tmp_path: Path) -> None:
    texts, context, features, labels = draw_problem()
    tower = TextGradient(save_graph(make_clip(), tmp_path), texts, SCALE)
    first, second = (tower.compute_slope(context, features, labels) for _ in range(2))
    np.testing.assert_array_equal(first[1], second[1])


def test_other_embeddings_are_noticed(tmp_path: Path) -> None:
    texts, context, *_ = draw_problem()
    tower = TextGradient(save_graph(make_clip(), tmp_path), texts, SCALE)
    with pytest.raises(ExportError, match="differ by"):
        tower.verify(context, np.zeros((6, EMBEDDING), np.float32))


@pytest.mark.parametrize("words", [0, 3])
def test_both_outputs_of_the_graph_with_padded_texts(words: int, tmp_path: Path) -> None:
    path = save_graph(make_clip(quick_gelu=True), tmp_path)
    generator = np.random.default_rng(0)
    feed = {
        **pad_texts(draw_texts(generator, [2, 5]), 3),
        "contexts": generator.normal(size=(2, words, WIDTH)).astype(np.float32),
    }
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    graph = TorchGraph(path)
    inputs = {name: torch.from_numpy(array) for name, array in feed.items()}
    for output in ("embeddings", "embedded"):
        (expected,) = session.run([output], feed)
        np.testing.assert_allclose(graph(inputs, output).numpy(), expected, atol=1e-5)


def test_unknown_operators_are_refused(tmp_path: Path) -> None:
    text = """<ir_version: 9, opset_import: ["" : 20]>
    g (float[N] x) => (float[N] y) { y = Erf(x) }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "graph.onnx")
    with pytest.raises(ExportError, match="operators Erf, whose gradients are not known"):
        TorchGraph(tmp_path / "graph.onnx")
    (tmp_path / "graph.onnx").write_bytes(b"none")
    with pytest.raises(ExportError, match="cannot read the graph"):
        TorchGraph(tmp_path / "graph.onnx")


def test_weights_in_half_precision(tmp_path: Path) -> None:
    model = make_clip()
    for parameter in text_tower_of(model).parameters():
        parameter.data = parameter.data.half().float()
    graph = store_as_half(build_text_graph(read_text_tower(model, START, END)))
    assert any(node.op_type == "Cast" for node in graph.graph.node)
    onnx.save(graph, tmp_path / "half.onnx")
    texts, context, features, labels = draw_problem()
    halves = TextGradient(tmp_path / "half.onnx", texts, SCALE)
    floats = TextGradient(save_graph(model, tmp_path), texts, SCALE)
    for first, second in zip(
        *(x.compute_slope(context, features, labels) for x in (halves, floats)), strict=True
    ):
        np.testing.assert_array_equal(first, second)
