"""Graph of CLIP's text tower against open_clip with random parameters."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
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
    encode_texts,
    make_clip,
    make_custom_clip,
    pad_texts,
)
from fozo.engine.model import FloatArray

torch = pytest.importorskip("torch", reason="export needs PyTorch")

from fozo.export.half_storage import store_as_half  # noqa: E402
from fozo.export.text_graph import build_text_graph  # noqa: E402
from fozo.export.text_model import read_text_tower  # noqa: E402

WIDTH = 48
TOLERANCE = 1e-5  # of vectors of length 1

CLIPS: dict[str, Callable[[], Any]] = {
    "gelu": make_clip,
    "quick_gelu": partial(make_clip, quick_gelu=True),
    "gelu_tanh": partial(make_clip, text={"act_kwargs": {"approximate": "tanh"}}),
    "one_block": partial(make_clip, text={"layers": 1}),
    "one_head": partial(make_clip, text={"heads": 1}),
    "layer_scale": partial(make_clip, text={"ls_init_value": 1e-5}),
    "large_epsilon": partial(make_clip, text={"norm_kwargs": {"eps": 0.1}}),
    "custom_text": make_custom_clip,
    "projection_bias": partial(make_custom_clip, text={"proj_bias": True}),
}


def open_text(model: Any) -> Callable[..., list[FloatArray]]:
    """Return a function from inputs of the text graph to embeddings and embedded tokens."""
    graph = build_text_graph(read_text_tower(model, START, END))
    onnx.checker.check_model(graph, full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda **feed: session.run(["embeddings", "embedded"], feed)


@pytest.mark.parametrize("name", CLIPS)
def test_graph_computes_what_open_clip_does(name: str) -> None:
    model = CLIPS[name]()
    encode = open_text(model)
    generator = np.random.default_rng(1)
    for texts in (1, 3):
        for count in (1, 2):
            for words in (0, 4, 8):
                for padding in (0, 5):
                    tokens = draw_texts(generator, [5, 1, 9][:texts])
                    contexts = generator.normal(0, 1, (count, words, WIDTH)).astype(np.float32)
                    expected = encode_texts(model, contexts, tokens)
                    case = f"T = {texts}, R = {count}, M = {words}, {padding} more"
                    embeddings, embedded = encode(**pad_texts(tokens, padding), contexts=contexts)
                    assert embeddings.shape == (count, texts, EMBEDDING)
                    assert embeddings.dtype == embedded.dtype == np.float32
                    np.testing.assert_allclose(embeddings, expected, atol=TOLERANCE, err_msg=case)
                    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=-1), 1, atol=1e-6)
                    padded = pad_texts(tokens, padding)["tokens"]
                    np.testing.assert_array_equal(embedded, embed_words(model, padded))


@pytest.mark.parametrize("words", [0, 4, 75])
@pytest.mark.parametrize("quick_gelu", [False, True])
def test_texts_may_fill_all_positions(words: int, quick_gelu: bool) -> None:
    model = make_clip(quick_gelu=quick_gelu)
    generator = np.random.default_rng(2)
    tokens = draw_texts(generator, [75 - words, 0, (75 - words) // 2])
    contexts = generator.normal(0, 1, (2, words, WIDTH)).astype(np.float32)
    embeddings, _ = open_text(model)(**pad_texts(tokens), contexts=contexts)
    np.testing.assert_allclose(embeddings, encode_texts(model, contexts, tokens), atol=TOLERANCE)


@pytest.mark.parametrize("name", ["gelu", "quick_gelu", "custom_text"])
def test_contexts_of_words_equal_the_sentences_as_a_whole(name: str) -> None:
    model = CLIPS[name]()
    encode = open_text(model)
    sentences = [[4, 8, 15, 16, 23, 42, END], [4, 8, 15, 16, 7, END], [4, 8, 15, 16, END]]
    whole = np.zeros((3, 77), np.int64)
    for row, ids in zip(whole, sentences, strict=True):
        row[: len(ids) + 1] = [START, *ids]
    with torch.no_grad():
        expected = model.encode_text(torch.from_numpy(whole), normalize=True).numpy()
    none = np.zeros((1, 0, WIDTH), np.float32)
    for words in range(5):
        _, embedded = encode(**pad_texts([[*sentences[0][:words], END]]), contexts=none)
        names = pad_texts([ids[words:] for ids in sentences])
        embeddings, _ = encode(**names, contexts=embedded[:, :words])
        np.testing.assert_allclose(embeddings[0], expected, atol=TOLERANCE, err_msg=f"{words} words")


def test_what_follows_the_end_token_does_not_matter() -> None:
    model = make_clip()
    encode = open_text(model)
    inputs = pad_texts([[3, 4, END], [5, 6, 7, 8, END]])
    contexts = np.random.default_rng(0).normal(0, 1, (2, 3, WIDTH)).astype(np.float32)
    before, _ = encode(**inputs, contexts=contexts)
    inputs["tokens"][0, 3:] = [11, END]
    after, _ = encode(**inputs, contexts=contexts)
    np.testing.assert_array_equal(before, after)


def test_contexts_and_texts_do_not_touch_each_other() -> None:
    encode = open_text(make_clip())
    generator = np.random.default_rng(3)
    tokens = draw_texts(generator, [2, 6, 4])
    contexts = generator.normal(0, 1, (3, 4, WIDTH)).astype(np.float32)
    together, _ = encode(**pad_texts(tokens), contexts=contexts)
    for r in range(3):
        for t in range(3):
            alone, _ = encode(**pad_texts([tokens[t]]), contexts=contexts[[r]])
            np.testing.assert_allclose(together[r, t], alone[0, 0], atol=1e-6)


@pytest.mark.parametrize(("words", "extra"), [(0, 77), (70, 7), (76, 1), (72, 40)])
def test_texts_that_are_too_long_are_an_error(words: int, extra: int) -> None:
    encode = open_text(make_clip())
    tokens = [[*([1] * (extra - 1)), END]]
    with pytest.raises(Exception, match="indices element out of data bounds"):
        encode(**pad_texts(tokens), contexts=np.zeros((1, words, WIDTH), np.float32))


def test_graph_is_plain_onnx() -> None:
    graph = build_text_graph(read_text_tower(make_clip(quick_gelu=True), START, END))
    assert [(entry.domain, entry.version) for entry in graph.opset_import] == [("", 20)]
    names = [node.name for node in graph.graph.node]
    assert len(set(names)) == len(names)
    assert not graph.functions
    kinds = {value.name: value.type.tensor_type for value in (*graph.graph.input, *graph.graph.output)}
    axes = {name: [d.dim_param or d.dim_value for d in kind.shape.dim] for name, kind in kinds.items()}
    assert axes == {
        "tokens": ["T", "L"],
        "lengths": ["T"],
        "contexts": ["R", "M", WIDTH],
        "embeddings": ["R", "T", EMBEDDING],
        "embedded": ["T", "L", WIDTH],
    }
    size = sum(
        parameter.numel() * 4 for name, parameter in make_clip().named_parameters() if "visual" not in name
    )
    assert graph.ByteSize() < size + 2e5  # no weight is stored twice


def test_prefix_is_computed_once_per_context() -> None:
    graph = build_text_graph(read_text_tower(make_clip(), START, END))
    shapes = onnx.shape_inference.infer_shapes(graph, data_prop=True)
    values = {value.name: value.type.tensor_type.shape for value in shapes.graph.value_info}
    queries = values["prefix/blocks.1.attn.query/matmul"]
    assert queries.dim[0].dim_param == "R"
    last = [node for node in graph.graph.node if node.name.startswith("prefix/blocks.2")]
    assert not [node for node in last if "mlp" in node.name or "query" in node.name]


def run(graph: onnx.ModelProto) -> FloatArray:
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    contexts = np.random.default_rng(0).normal(0, 1, (2, 3, WIDTH)).astype(np.float32)
    texts = pad_texts([[3, 4, END], [5, 6, 7, 8, END]])
    (embeddings,) = session.run(["embeddings"], {**texts, "contexts": contexts})
    return np.asarray(embeddings)


def test_half_precision_is_stored_where_nothing_is_lost() -> None:
    model = make_clip()
    for name, parameter in model.named_parameters():
        if name != "transformer.resblocks.1.mlp.c_fc.weight":
            parameter.data = parameter.data.half().float()
    graph = build_text_graph(read_text_tower(model, START, END))
    smaller = store_as_half(graph)
    onnx.checker.check_model(smaller, full_check=True)
    assert smaller.ByteSize() < 0.65 * graph.ByteSize()
    np.testing.assert_array_equal(run(smaller), run(graph))
    kinds = {tensor.name: tensor.data_type for tensor in smaller.graph.initializer}
    assert kinds["blocks.1.mlp.fc1.weight"] == onnx.TensorProto.FLOAT
    assert kinds["blocks.0.mlp.fc1.weight/half"] == onnx.TensorProto.FLOAT16
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in smaller.graph.initializer}
    for tensor in graph.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        kept = stored.get(tensor.name, stored.get(f"{tensor.name}/half"))
        assert kept is not None
        np.testing.assert_array_equal(kept.astype(values.dtype), values)
    large = make_clip()
    large.token_embedding.weight.data[0, 0] = 1e6
    untouched = build_text_graph(read_text_tower(large, START, END))
    assert {t.data_type for t in store_as_half(untouched).graph.initializer if len(t.dims) > 1} == {
        onnx.TensorProto.FLOAT,
        onnx.TensorProto.FLOAT16,  # the mask, of zeros and -∞
    }


def make_refused(**text: Any) -> Any:
    return make_custom_clip(text=text)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (partial(make_refused, no_causal_mask=True), "without causal mask"),
        (partial(make_refused, pool_type="last"), "pooling 'last'"),
        (partial(make_clip, text={"pool_type": "eos"}), "pooling 'eos'"),
        (partial(make_refused, embed_cls=True), "class token of its own"),
        (partial(make_refused, proj_type="none"), "no projection"),
        (partial(make_clip, text={"qk_norm": True}), "CustomResidualAttentionBlock"),
        (lambda: torch.nn.Linear(1, 1), "is a Linear"),
    ],
)
def test_towers_that_compute_something_else_are_refused(model: Callable[[], Any], reason: str) -> None:
    from fozo import ExportError

    with pytest.raises(ExportError, match=reason):
        read_text_tower(model(), START, END)


def test_tokens_outside_of_the_vocabulary_are_refused() -> None:
    from fozo import ExportError

    with pytest.raises(ExportError, match="vocabulary of 100 tokens"):
        read_text_tower(make_clip(), 98, 100)
