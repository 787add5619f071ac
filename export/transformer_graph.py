"""Writers of the parts of a transformer block, shared by the graphs of image and text towers."""

from __future__ import annotations

import numpy as np

from .onnx_builder import OnnxBuilder
from .transformer_model import Block, Linear, Norm


def write_attention(b: OnnxBuilder, query_tokens: str, key_tokens: str, block: Block, name: str) -> str:
    """Write the attention of the query tokens `[N, Q, D]` over the key tokens `[N, K, D]`."""
    queries = write_queries(b, query_tokens, block, name)
    keys, values = write_keys_and_values(b, key_tokens, block, name)
    scores = b.node("MatMul", [queries, keys], f"{name}/scores")
    weights = b.node("Softmax", [scores], f"{name}/softmax", axis=-1)
    mix = b.node("MatMul", [weights, values], f"{name}/mix")
    return write_output_projection(b, mix, block, name)


def write_queries(b: OnnxBuilder, tokens: str, block: Block, name: str) -> str:
    """Write the queries of all heads `[N, H, Q, d]`, divided by the root of the head width."""
    if block.query_norm is None:
        return _write_heads(b, tokens, merge_query_scale(block), None, block, f"{name}.query", [0, 2, 1, 3])
    q = _write_heads(b, tokens, block.query, block.query_norm, block, f"{name}.query", [0, 2, 1, 3])
    return b.node("Mul", [q, b.weight(f"{name}.scale", np.asarray(block.head_width**-0.5))], f"{name}/scale")


def write_keys_and_values(b: OnnxBuilder, tokens: str, block: Block, name: str) -> tuple[str, str]:
    """Write keys `[N, H, d, K]` and values `[N, H, K, d]` of all heads."""
    keys = _write_heads(b, tokens, block.key, block.key_norm, block, f"{name}.key", [0, 2, 3, 1])
    return keys, _write_heads(b, tokens, block.value, None, block, f"{name}.value", [0, 2, 1, 3])


def _write_heads(
    b: OnnxBuilder, x: str, linear: Linear, norm: Norm | None, block: Block, name: str, perm: list[int]
) -> str:
    y = b.linear(x, linear.weight, linear.bias, name)
    y = b.reshape(y, (0, 0, block.heads, block.head_width), f"{name}/heads")
    if norm is not None:
        y = write_norm(b, y, norm, f"{name}_norm")
    return b.node("Transpose", [y], f"{name}/transpose", perm=perm)


def write_output_projection(b: OnnxBuilder, mix: str, block: Block, name: str) -> str:
    """Write the output of an attention `[N, Q, D]` from what its heads have mixed, `[N, H, Q, d]`."""
    y = b.node("Transpose", [mix], f"{name}/untranspose", perm=[0, 2, 1, 3])
    y = b.reshape(y, (0, 0, block.heads * block.head_width), f"{name}/unheads")
    if block.attention_norm is not None:
        y = write_norm(b, y, block.attention_norm, f"{name}.norm")
    return b.linear(y, block.proj.weight, block.proj.bias, f"{name}.proj")


def merge_query_scale(block: Block) -> Linear:
    """Return the query projection of a block, divided by the root of the head width."""
    scale = block.head_width**-0.5
    bias = None if block.query.bias is None else block.query.bias * scale
    return Linear(block.query.weight * scale, bias)


def write_mlp(b: OnnxBuilder, x: str, block: Block, name: str) -> str:
    """Write the MLP of a block, without the norm before it."""
    x = b.linear(x, block.fc1.weight, block.fc1.bias, f"{name}.fc1")
    if block.gate is None:
        x = _write_activation(b, x, block.activation, f"{name}/act")
    else:
        half = len(block.fc1.weight) // 2
        halves = [b.slice(x, half * i, half * (i + 1), 2, f"{name}/half{i}") for i in range(2)]
        active = 0 if block.gate == "first" else 1
        halves[active] = _write_activation(b, halves[active], block.activation, f"{name}/act")
        x = b.node("Mul", halves, f"{name}/gate")
    if block.mlp_norm is not None:
        x = write_norm(b, x, block.mlp_norm, f"{name}.norm")
    return b.linear(x, block.fc2.weight, block.fc2.bias, f"{name}.fc2")


def _write_activation(b: OnnxBuilder, x: str, activation: str, name: str) -> str:
    if activation in ("gelu", "gelu_tanh"):
        return b.node("Gelu", [x], name, approximate="tanh" if activation == "gelu_tanh" else "none")
    if activation == "relu":
        return b.node("Relu", [x], name)
    # SiLU and QuickGELU are x · sigmoid(c x), with c = 1 and 1.702.
    scaled = x
    if activation == "quick_gelu":
        scaled = b.node("Mul", [x, b.weight("quick_gelu", np.asarray(1.702))], f"{name}/scale")
    return b.node("Mul", [x, b.node("Sigmoid", [scaled], f"{name}/sigmoid")], name)


def write_norm(b: OnnxBuilder, x: str, norm: Norm, name: str) -> str:
    """Write a layer norm over the last axis."""
    weights = [b.weight(f"{name}.weight", norm.weight), b.weight(f"{name}.bias", norm.bias)]
    return b.node("LayerNormalization", [x, *weights], name, axis=-1, epsilon=norm.epsilon)
