"""ONNX graph of a text tower with a shared prefix, following the text contract (docs/bundle.md).

A text is a start token, a context, and the tokens of one class: its name, the words after it, the end token.
The tower is causal, so start token and context, the prefix, do not depend on the class. The graph computes
them once per context. The tokens of a class, the suffix, attend to the prefix and to those before them. The
last block computes only what the end token needs. All of this is exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto

from ..engine.runtime.graph_contract import CONTEXTS, EMBEDDED, EMBEDDINGS, LENGTHS, TOKENS
from .onnx_builder import OnnxBuilder, Values
from .signature import OPSET
from .text_model import TextTower
from .transformer_graph import (
    write_keys_and_values,
    write_mlp,
    write_norm,
    write_output_projection,
    write_queries,
)
from .transformer_model import Block


def build_text_graph(tower: TextTower) -> onnx.ModelProto:
    """Build the graph of a text tower.

    Inputs: `tokens` int64 `[T, L]`, padded behind the end token; `lengths` int64 `[T]`, index of the end
    token; `contexts` float32 `[R, M, D]`, M ≥ 0. Outputs: `embeddings` float32 `[R, T, E]` of length 1, and
    `embedded` `[T, L, D]`, embeddings of the tokens without positions. 1 + M + L is at most the number of
    positions of the tower; ONNX Runtime raises an error beyond it.
    """
    b = OnnxBuilder()
    shapes = _write_shapes(b)
    prefix, suffix = _write_prefix(b, tower, shapes), _write_suffix(b, tower, shapes)
    layouts = _write_layouts(b, tower, shapes)
    for index, block in enumerate(tower.blocks[:-1]):
        prefix, suffix = _write_block(b, prefix, suffix, block, layouts, f"blocks.{index}")
    ends = _write_last_block(b, prefix, suffix, tower.blocks[-1], layouts, f"blocks.{len(tower.blocks) - 1}")
    ends = write_norm(b, ends, tower.norm, "norm")
    embeddings = b.linear(ends, tower.projection.weight, tower.projection.bias, "projection")
    b.node("LpNormalization", [embeddings], "normalise", output=EMBEDDINGS, axis=-1, p=2)
    inputs: Values = {
        TOKENS: (TensorProto.INT64, ("T", "L")),
        LENGTHS: (TensorProto.INT64, ("T",)),
        CONTEXTS: (TensorProto.FLOAT, ("R", "M", tower.width)),
    }
    outputs: Values = {
        EMBEDDINGS: (TensorProto.FLOAT, ("R", "T", len(tower.projection.weight))),
        EMBEDDED: (TensorProto.FLOAT, ("T", "L", tower.width)),
    }
    return b.model(inputs, outputs, OPSET, "fozo", "text")


@dataclass(frozen=True)
class _Shapes:
    """Names of sizes in the graph, int64 `[1]` each.

    Attributes:
        contexts: R.
        texts: T.
        suffix: L.
        prefix: P = 1 + M, start token and context.
    """

    contexts: str
    texts: str
    suffix: str
    prefix: str


@dataclass(frozen=True)
class _Layout:
    """Names of the values that say how the queries of a block lie.

    Attributes:
        grid: shape that turns `[R, H, T·Q, any]` into `[R, H, T, Q, any]`.
        mask: what is added to the scores of a query with the keys of its text: 0, or -∞ for later keys.
    """

    grid: str
    mask: str


@dataclass(frozen=True)
class _Layouts:
    """Names of the values that all blocks share.

    Attributes:
        prefix_mask: `[P, P]`, added to the scores within the prefix.
        words: layout with Q = L and a mask `[L, L]`: every token of the suffix is a query.
        ends: layout with Q = 1 and a mask `[T, 1, L]`: the end tokens are.
        places: places of the end tokens among the T·L tokens of the suffix, `[T]`.
        spread: shape `[R, 1, 1, 1, 1]`, which scores of the suffix are broadcast to.
        shapes: the sizes.
    """

    prefix_mask: str
    words: _Layout
    ends: _Layout
    places: str
    spread: str
    shapes: _Shapes


def _write_shapes(b: OnnxBuilder) -> _Shapes:
    texts, suffix, contexts, context = (
        b.node("Shape", [x], f"shapes/{label}", start=axis, end=axis + 1)
        for x, axis, label in (
            (TOKENS, 0, "texts"),
            (TOKENS, 1, "suffix"),
            (CONTEXTS, 0, "contexts"),
            (CONTEXTS, 1, "context"),
        )
    )
    return _Shapes(contexts, texts, suffix, b.node("Add", [context, b.ints(1)], "shapes/prefix"))


def _write_prefix(b: OnnxBuilder, tower: TextTower, shapes: _Shapes) -> str:
    """Write start token and context with their positions, `[R, P, D]`."""
    start = b.weight("start_embedding", tower.embedding[tower.start][None, None])
    spread = b.node("Concat", [shapes.contexts, b.ints(1, 1)], "prefix/spread", axis=0)
    start = b.node("Expand", [start, spread], "prefix/start")
    x = b.node("Concat", [start, CONTEXTS], "prefix/concat", axis=1)
    table = b.weight("positional_embedding", tower.positions)
    positions = b.node("Slice", [table, b.ints(0), shapes.prefix], "prefix/positions")
    return b.node("Add", [x, positions], "prefix/add_positions")


def _write_suffix(b: OnnxBuilder, tower: TextTower, shapes: _Shapes) -> str:
    """Write the tokens of all texts with their positions, `[1, T·L, D]`: no context has touched them yet."""
    table = b.weight("token_embedding.weight", tower.embedding)
    x = b.node("Gather", [table, TOKENS], "suffix/embedded", output=EMBEDDED)
    stop = b.node("Add", [shapes.prefix, shapes.suffix], "suffix/stop")
    # Gather refuses places behind the last position, where a slice of the positions would be too short.
    numbers = b.weight("numbers", np.arange(2 * len(tower.positions), dtype=np.int64))
    places = b.node("Slice", [numbers, shapes.prefix, stop], "suffix/places")
    table = b.weight("positional_embedding", tower.positions)
    positions = b.node("Gather", [table, places], "suffix/positions")
    x = b.node("Add", [x, positions], "suffix/add_positions")
    return b.reshape(x, (1, -1, tower.width), "suffix/tokens")


def _write_layouts(b: OnnxBuilder, tower: TextTower, shapes: _Shapes) -> _Layouts:
    length = len(tower.positions)
    mask = b.weight("mask", np.triu(np.full((length, length), -np.inf), 1))

    def cut_mask(size: str, label: str) -> str:
        sides = b.node("Concat", [size, size], f"{label}/mask_sides", axis=0)
        return b.node("Slice", [mask, b.ints(0, 0), sides], f"{label}/mask")

    def write_grid(queries: str, label: str) -> str:
        lengths = [b.ints(0, 0), shapes.texts, queries, b.ints(-1)]
        return b.node("Concat", lengths, f"{label}/grid", axis=0)

    words = _Layout(write_grid(shapes.suffix, "words"), cut_mask(shapes.suffix, "words"))
    end_rows = b.node("Gather", [words.mask, LENGTHS], "ends/mask_rows")
    ends = _Layout(write_grid(b.ints(1), "ends"), b.node("Unsqueeze", [end_rows, b.ints(1)], "ends/mask"))
    zero, one = (b.weight(f"number_{value}", np.asarray(value, np.int64)) for value in (0, 1))
    count = b.node("Squeeze", [shapes.texts], "ends/count")
    rows = b.node("Range", [zero, count, one], "ends/rows")
    starts = b.node("Mul", [rows, shapes.suffix], "ends/starts")
    return _Layouts(
        prefix_mask=cut_mask(shapes.prefix, "prefix"),
        words=words,
        ends=ends,
        places=b.node("Add", [starts, LENGTHS], "ends/places"),
        spread=b.node("Concat", [shapes.contexts, b.ints(1, 1, 1, 1)], "words/spread", axis=0),
        shapes=shapes,
    )


def _write_block(
    b: OnnxBuilder, prefix: str, suffix: str, block: Block, layouts: _Layouts, name: str
) -> tuple[str, str]:
    """Write one block; return the new prefix `[R, P, D]` and suffix `[R, T·L, D]`."""
    inner, attention = b.scope("prefix/"), f"{name}.attn"
    normed = write_norm(inner, prefix, block.norm1, f"{name}.norm1")
    keys, values = write_keys_and_values(inner, normed, block, attention)
    queries = write_queries(inner, normed, block, attention)
    scores = inner.node("MatMul", [queries, keys], f"{attention}/scores")
    scores = inner.node("Add", [scores, layouts.prefix_mask], f"{attention}/masked")
    weights = inner.node("Softmax", [scores], f"{attention}/softmax", axis=-1)
    mix = inner.node("MatMul", [weights, values], f"{attention}/mix")
    new_prefix = _write_residuals(inner, prefix, mix, block, name)

    inner = b.scope("suffix/")
    normed = write_norm(inner, suffix, block.norm1, f"{name}.norm1")
    mix = _write_mix(inner, (normed, normed), (keys, values), block, layouts, layouts.words, attention)
    return new_prefix, _write_residuals(inner, suffix, mix, block, name)


def _write_last_block(
    b: OnnxBuilder, prefix: str, suffix: str, block: Block, layouts: _Layouts, name: str
) -> str:
    """Write the last block, from which only the end tokens come out, `[R, T, D]`."""
    inner, attention = b.scope("prefix/"), f"{name}.attn"
    normed = write_norm(inner, prefix, block.norm1, f"{name}.norm1")
    keys_and_values = write_keys_and_values(inner, normed, block, attention)

    inner = b.scope("suffix/")
    normed = write_norm(inner, suffix, block.norm1, f"{name}.norm1")
    ends, normed_ends = (
        inner.node("Gather", [x, layouts.places], f"{name}/keep_{label}", axis=1)
        for x, label in ((suffix, "x"), (normed, "queries"))
    )
    mix = _write_mix(inner, (normed_ends, normed), keys_and_values, block, layouts, layouts.ends, attention)
    return _write_residuals(inner, ends, mix, block, name)


def _write_mix(
    b: OnnxBuilder,
    tokens: tuple[str, str],
    prefix: tuple[str, str],
    block: Block,
    layouts: _Layouts,
    layout: _Layout,
    name: str,
) -> str:
    """Write what the heads of the suffix mix from the prefix and from their own text, `[R, H, T·Q, d]`.

    Args:
        b: the builder.
        tokens: query tokens `[R or 1, T·Q, D]` and key tokens `[R or 1, T·L, D]`.
        prefix: keys `[R, H, d, P]` and values `[R, H, P, d]`.
        block: the block.
        layouts: values that all blocks share.
        layout: how the queries lie.
        name: name of the attention.
    """
    queries = write_queries(b, tokens[0], block, name)
    keys, values = _write_text_keys_and_values(b, tokens[1], block, layouts, name)
    # One product for all texts; as rows of a text they are the same numbers in the same order.
    prefix_scores = b.node("MatMul", [queries, prefix[0]], f"{name}/prefix_scores")
    prefix_scores = b.node("Reshape", [prefix_scores, layout.grid], f"{name}/prefix_scores_by_text")
    queries = b.node("Reshape", [queries, layout.grid], f"{name}/queries_by_text")
    scores = b.node("MatMul", [queries, keys], f"{name}/scores")
    scores = b.node("Add", [scores, layout.mask], f"{name}/masked")
    scores = b.node("Expand", [scores, layouts.spread], f"{name}/spread")
    scores = b.node("Concat", [prefix_scores, scores], f"{name}/all_scores", axis=-1)
    weights = b.node("Softmax", [scores], f"{name}/softmax", axis=-1)

    size = layouts.shapes.prefix
    end = b.ints(np.iinfo(np.int64).max)
    prefix_weights = b.node("Slice", [weights, b.ints(0), size, b.ints(-1)], f"{name}/prefix_weights")
    weights = b.node("Slice", [weights, size, end, b.ints(-1)], f"{name}/weights")
    flat = b.node("Concat", [b.ints(0, 0, -1), size], f"{name}/flat", axis=0)
    prefix_weights = b.node("Reshape", [prefix_weights, flat], f"{name}/prefix_weights_of_all")
    prefix_mix = b.node("MatMul", [prefix_weights, prefix[1]], f"{name}/prefix_mix")
    mix = b.node("MatMul", [weights, values], f"{name}/mix_by_text")
    mix = b.reshape(mix, (0, 0, -1, block.head_width), f"{name}/mix_of_all")
    return b.node("Add", [prefix_mix, mix], f"{name}/mix")


def _write_text_keys_and_values(
    b: OnnxBuilder, tokens: str, block: Block, layouts: _Layouts, name: str
) -> tuple[str, str]:
    """Write keys `[R or 1, H, T, d, L]` and values `[R or 1, H, T, L, d]` of the suffix, apart by text."""
    sizes = [b.ints(0), layouts.shapes.texts, layouts.shapes.suffix, b.ints(block.heads, block.head_width)]
    shape = b.node("Concat", sizes, f"{name}/by_text", axis=0)

    def write(label: str, perm: list[int]) -> str:
        linear = getattr(block, label)
        y = b.linear(tokens, linear.weight, linear.bias, f"{name}.{label}")
        y = b.node("Reshape", [y, shape], f"{name}.{label}/by_text")
        return b.node("Transpose", [y], f"{name}.{label}/transpose", perm=perm)

    return write("key", [0, 3, 1, 4, 2]), write("value", [0, 3, 1, 2, 4])


def _write_residuals(b: OnnxBuilder, x: str, mix: str, block: Block, name: str) -> str:
    """Write the rest of a block behind its heads: output projection, MLP, and both additions."""
    attention = write_output_projection(b, mix, block, f"{name}.attn")
    x = b.node("Add", [x, attention], f"{name}/attn_residual")
    hidden = write_norm(b, x, block.norm2, f"{name}.norm2")
    return b.node("Add", [x, write_mlp(b, hidden, block, f"{name}.mlp")], f"{name}/mlp_residual")
