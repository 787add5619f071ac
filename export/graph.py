"""A vision transformer as an ONNX graph that follows the graph contract (docs/bundle.md).

The graph is written node by node rather than traced: it stays small, it uses standard operators only, and
what adaptation does not need is not computed. In particular only the tokens that the classifier reads leave
the last block, so its queries, projection and MLP are computed for these alone; this is exact.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import onnx
from onnx import TensorProto

from .onnx_builder import OnnxBuilder, Values
from .vit import Block, Linear, Norm, Vit

OPSET = 20


def build_graph(
    vit: Vit, mean: tuple[float, ...], std: tuple[float, ...], tunable_norms: Sequence[str] = ()
) -> onnx.ModelProto:
    """The graph of a model: images and tunables in; logits, features and moments of the embedding out.

    Args:
        vit: the model.
        mean: per channel, of images scaled to 0..1, subtracted inside the graph.
        std: per channel, of images scaled to 0..1, divided by inside the graph.
        tunable_norms: norms of blocks, like `blocks.3.norm1`, whose gain and bias get a tunable addend.
    """
    b = OnnxBuilder()
    norms = _Norms(b, vit, tunable_norms)
    x = _embed(b, vit, mean, std)
    features: list[str] = []
    for index, block in enumerate(vit.blocks):
        normed = norms.apply(x, block.norm1, f"blocks.{index}.norm1")
        if index:
            features.append(_readout(b, normed, vit, f"feature.{index}"))
        last = index == len(vit.blocks) - 1
        x = _block(b, norms, x, normed, block, f"blocks.{index}", keep=vit.readout if last else None)
    features.append(_feature(b, _norm(b, x, vit.norm, "norm"), vit, f"feature.{len(vit.blocks)}"))
    _outputs(b, features, vit)
    height, width = vit.image_size
    classes, layers = len(vit.head.weight), len(vit.blocks)
    inputs: Values = {
        "images": (TensorProto.UINT8, ["N", height, width, 3]),
        "prompts": (TensorProto.FLOAT, ["R", "P", vit.width]),
    }
    if tunable_norms:
        inputs["norms"] = (TensorProto.FLOAT, ["S", len(tunable_norms), 2, vit.width])
    outputs: Values = {
        "logits": (TensorProto.FLOAT, ["N", classes]),
        "features": (TensorProto.FLOAT, ["N", layers, vit.readout * vit.width]),
        "embedding": (TensorProto.FLOAT, ["N", 2, vit.width]),
    }
    return b.model(inputs, outputs, OPSET, "fozo")


def block_norms(vit: Vit, blocks: Iterable[int] | None = None) -> tuple[str, ...]:
    """Names of the norms of some blocks, counted from 0, or of all of them, in the order of computation."""
    chosen = range(len(vit.blocks)) if blocks is None else sorted(set(blocks))
    return tuple(f"blocks.{index}.{norm}" for index in chosen for norm in ("norm1", "norm2"))


class _Norms:
    """The layer norms of the blocks, with addends to gain and bias where they are tunable.

    The addends of all norms come in one tensor `norms` `[S, M, 2, D]` and are added to the stored values at
    once; each norm then reads its gain and bias `[S, 1, D]`.
    """

    def __init__(self, b: OnnxBuilder, vit: Vit, tunable: Sequence[str]) -> None:
        self._builder = b
        self._parameters: dict[str, list[str]] = {}
        if not tunable:
            return
        stored = {
            f"blocks.{index}.{name}": getattr(block, name)
            for index, block in enumerate(vit.blocks)
            for name in ("norm1", "norm2")
        }
        values = np.stack([np.stack([stored[name].weight, stored[name].bias]) for name in tunable])[None]
        total = b.node("Add", ["norms", b.weight("norms.stored", values)], "norms/total")
        rows = b.reshape(total, (0, 2 * len(tunable), vit.width), "norms/rows")
        parts = [f"{name}.{part}" for name in tunable for part in ("weight", "bias")]
        b.split(rows, 1, parts, "norms/split")
        self._parameters = {name: [f"{name}.weight", f"{name}.bias"] for name in tunable}

    def apply(self, x: str, norm: Norm, name: str) -> str:
        """A norm of a block, tunable or not."""
        if name not in self._parameters:
            return _norm(self._builder, x, norm, name)
        inputs = [x, *self._parameters[name]]
        return self._builder.node("LayerNormalization", inputs, name, axis=-1, epsilon=norm.epsilon)


def _embed(b: OnnxBuilder, vit: Vit, mean: tuple[float, ...], std: tuple[float, ...]) -> str:
    """Tokens `[N, prefix + P + M, D]`: patches are cut out as bytes, prompts get no position embedding."""
    (rows, columns), (ph, pw) = vit.grid, vit.patch_size
    x = "images"
    for axis, used, size in ((1, rows * ph, vit.image_size[0]), (2, columns * pw, vit.image_size[1])):
        if used < size:  # a convolution ignores what does not fill a patch
            x = b.slice(x, 0, used, axis, f"patch_embed/crop{axis}")
    x = b.reshape(x, (0, rows, ph, columns, pw, 3), "patch_embed/grid")
    x = b.node("Transpose", [x], "patch_embed/cut", perm=[0, 1, 3, 2, 4, 5])
    x = b.reshape(x, (0, rows * columns, ph * pw * 3), "patch_embed/flatten")
    x = b.node("Cast", [x], "patch_embed/cast", to=TensorProto.FLOAT)
    patch = _normalised(vit.patch, mean, std)
    if vit.patch_norm is None:  # position embedding and bias are one addition
        assert patch.bias is not None
        x = b.linear(x, patch.weight, None, "patch_embed.proj")
        x = b.node(
            "Add",
            [x, b.weight("patch_embed.bias_and_positions", patch.bias + vit.positions)],
            "patch_embed/positions",
        )
    else:
        x = _norm(
            b, b.linear(x, patch.weight, patch.bias, "patch_embed.proj"), vit.patch_norm, "patch_embed.norm"
        )
        x = b.node("Add", [x, b.weight("positions", vit.positions)], "patch_embed/positions")
    if vit.norm_pre is None:
        _embedding_moments(b, x, rows * columns)
    count = b.node("Shape", ["images"], "tokens/count", start=0, end=1)
    shape = b.node("Concat", [count, b.ints(1, 1)], "tokens/shape", axis=0)
    prefix = b.node("Expand", [b.weight("prefix", vit.prefix[None]), shape], "tokens/prefix")
    prompts = b.node("Expand", ["prompts", shape], "tokens/prompts")
    if vit.norm_pre is not None:
        _embedding_moments(b, _norm(b, x, vit.norm_pre, "embedding/norm_pre"), rows * columns)
    x = b.node("Concat", [prefix, prompts, x], "tokens/concat", axis=1)
    return x if vit.norm_pre is None else _norm(b, x, vit.norm_pre, "norm_pre")


def _embedding_moments(b: OnnxBuilder, x: str, tokens: int) -> None:
    """Mean and biased variance over the patch tokens of each image `[N, 2, D]`: what tells domains apart."""
    # A product and not ReduceMean, whose last bits depend on the number of images.
    weights = b.weight("embedding.weights", np.full((1, 1, tokens), 1 / tokens))
    mean = b.node("MatMul", [weights, x], "embedding/mean")
    centred = b.node("Sub", [x, mean], "embedding/centred")
    squares = b.node("Mul", [centred, centred], "embedding/squares")
    variance = b.node("MatMul", [weights, squares], "embedding/variance")
    b.node("Concat", [mean, variance], "embedding/concat", output="embedding", axis=1)


def _normalised(patch: Linear, mean: tuple[float, ...], std: tuple[float, ...]) -> Linear:
    """The patch embedding of bytes 0..255: `(x / 255 - mean) / std` is part of its weight and bias."""
    assert patch.bias is not None
    weight = patch.weight.astype(np.float64).reshape(len(patch.weight), -1, 3)
    bias = patch.bias - (weight * (np.asarray(mean) / np.asarray(std))).sum(axis=(1, 2))
    return Linear((weight / (255 * np.asarray(std))).reshape(patch.weight.shape), bias)


def _block(
    b: OnnxBuilder, norms: _Norms, x: str, normed: str, block: Block, name: str, keep: int | None
) -> str:
    """One block; `keep` is the number of leading tokens that leave it, or None for all."""
    asking = normed
    if keep is not None:
        x, asking = (
            b.slice(t, 0, keep, 1, f"{name}/keep_{label}") for t, label in ((x, "x"), (normed, "queries"))
        )
    x = b.node("Add", [x, _attention(b, asking, normed, block, f"{name}.attn")], f"{name}/attn_residual")
    hidden = norms.apply(x, block.norm2, f"{name}.norm2")
    return b.node("Add", [x, _mlp(b, hidden, block, f"{name}.mlp")], f"{name}/mlp_residual")


def _attention(b: OnnxBuilder, asking: str, asked: str, block: Block, name: str) -> str:
    """Attention of the tokens `asking` over the tokens `asked`."""
    width = len(block.query.weight) // block.heads
    scale = width**-0.5
    query, scale_after = block.query, block.query_norm is not None
    if not scale_after:
        query = Linear(query.weight * scale, None if query.bias is None else query.bias * scale)

    def heads(source: str, linear: Linear, norm: Norm | None, label: str, perm: list[int]) -> str:
        y = b.linear(source, linear.weight, linear.bias, f"{name}.{label}")
        y = b.reshape(y, (0, 0, block.heads, width), f"{name}.{label}/heads")
        if norm is not None:
            y = _norm(b, y, norm, f"{name}.{label}_norm")
        return b.node("Transpose", [y], f"{name}.{label}/transpose", perm=perm)

    q = heads(asking, query, block.query_norm, "query", [0, 2, 1, 3])
    if scale_after:
        q = b.node("Mul", [q, b.weight(f"{name}.scale", np.asarray(scale))], f"{name}/scale")
    k = heads(asked, block.key, block.key_norm, "key", [0, 2, 3, 1])
    v = heads(asked, block.value, None, "value", [0, 2, 1, 3])
    weights = b.node("Softmax", [b.node("MatMul", [q, k], f"{name}/scores")], f"{name}/softmax", axis=-1)
    y = b.node(
        "Transpose", [b.node("MatMul", [weights, v], f"{name}/mix")], f"{name}/untranspose", perm=[0, 2, 1, 3]
    )
    y = b.reshape(y, (0, 0, block.heads * width), f"{name}/unheads")
    if block.attention_norm is not None:
        y = _norm(b, y, block.attention_norm, f"{name}.norm")
    return b.linear(y, block.project.weight, block.project.bias, f"{name}.proj")


def _mlp(b: OnnxBuilder, x: str, block: Block, name: str) -> str:
    x = b.linear(x, block.grow.weight, block.grow.bias, f"{name}.fc1")
    if block.gate is None:
        x = _activate(b, x, block.activation, f"{name}/act")
    else:
        half = len(block.grow.weight) // 2
        halves = [b.slice(x, half * i, half * (i + 1), 2, f"{name}/half{i}") for i in range(2)]
        active = 0 if block.gate == "first" else 1
        halves[active] = _activate(b, halves[active], block.activation, f"{name}/act")
        x = b.node("Mul", halves, f"{name}/gate")
    if block.mlp_norm is not None:
        x = _norm(b, x, block.mlp_norm, f"{name}.norm")
    return b.linear(x, block.shrink.weight, block.shrink.bias, f"{name}.fc2")


def _activate(b: OnnxBuilder, x: str, activation: str, name: str) -> str:
    if activation in ("gelu", "gelu_tanh"):
        return b.node("Gelu", [x], name, approximate="tanh" if activation == "gelu_tanh" else "none")
    if activation == "relu":
        return b.node("Relu", [x], name)
    # SiLU and QuickGELU are x · sigmoid(c x), with c = 1 and 1.702.
    scaled = x
    if activation == "quick_gelu":
        scaled = b.node("Mul", [x, b.weight("quick_gelu", np.asarray(1.702))], f"{name}/scale")
    return b.node("Mul", [x, b.node("Sigmoid", [scaled], f"{name}/sigmoid")], name)


def _norm(b: OnnxBuilder, x: str, norm: Norm, name: str) -> str:
    weights = [b.weight(f"{name}.weight", norm.weight), b.weight(f"{name}.bias", norm.bias)]
    return b.node("LayerNormalization", [x, *weights], name, axis=-1, epsilon=norm.epsilon)


def _readout(b: OnnxBuilder, normed: str, vit: Vit, name: str) -> str:
    """The feature `[N, 1, F]` of a block from the normalised tokens after it."""
    return _feature(b, b.slice(normed, 0, vit.readout, 1, f"{name}/tokens"), vit, name)


def _feature(b: OnnxBuilder, tokens: str, vit: Vit, name: str) -> str:
    return tokens if vit.readout == 1 else b.reshape(tokens, (0, 1, vit.readout * vit.width), name)


def _outputs(b: OnnxBuilder, features: list[str], vit: Vit) -> None:
    b.node("Concat", features, "features/concat", output="features", axis=1)
    last = b.reshape(features[-1], (0, vit.readout * vit.width), "head/input")
    weights = [b.weight("head.weight", vit.head.weight.T), b.weight("head.bias", vit.head_bias)]
    b.node("Gemm", [last, *weights], "head", output="logits")
