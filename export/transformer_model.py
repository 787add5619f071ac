"""Plain description of a transformer block, shared by image and text towers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from ..engine.model import FloatArray
from .parameters import read_array, read_array_or


@dataclass(frozen=True)
class Norm:
    """Layer norm over the last axis: `weight` and `bias` float32 `[width]`, and `epsilon`."""

    weight: FloatArray
    bias: FloatArray
    epsilon: float


@dataclass(frozen=True)
class Linear:
    """`x @ weight.T + bias`: `weight` float32 `[out, in]`, `bias` `[out]` or None."""

    weight: FloatArray
    bias: FloatArray | None


@dataclass(frozen=True)
class Block:
    """One pre-norm transformer block; layer scale is already part of `proj` and `fc2`.

    Attributes:
        norm1: before attention; at the class token, its output is the feature of the preceding block.
        query, key, value: projections, `[heads · head width, D]`.
        query_norm, key_norm: norms over the head width, or None.
        heads: number of attention heads.
        attention_norm: norm of the attention's output, or None.
        proj: output projection of the attention.
        norm2: before the MLP.
        fc1: first layer of the MLP, twice as wide where it is gated.
        activation: `gelu`, `gelu_tanh`, `quick_gelu`, `relu` or `silu`.
        gate: None, or which half of `fc1` goes through the activation: `first` or `last`.
        mlp_norm: norm before the second layer, or None.
        fc2: second layer of the MLP.
    """

    norm1: Norm
    query: Linear
    key: Linear
    value: Linear
    query_norm: Norm | None
    key_norm: Norm | None
    heads: int
    attention_norm: Norm | None
    proj: Linear
    norm2: Norm
    fc1: Linear
    activation: str
    gate: str | None
    mlp_norm: Norm | None
    fc2: Linear

    @property
    def head_width(self) -> int:
        """Width of one attention head."""
        return len(self.query.weight) // self.heads


def convert_linear(layer: Any) -> Linear:
    """Return the description of an `nn.Linear`."""
    return Linear(read_array(layer.weight), None if layer.bias is None else read_array(layer.bias))


def convert_norm(layer: nn.LayerNorm) -> Norm:
    """Return the description of a layer norm; a gain of 1 and a bias of 0 stand for absent ones."""
    width = layer.normalized_shape[-1]
    weight = read_array_or(np.ones(width, np.float32), layer.weight)
    bias = read_array_or(np.zeros(width, np.float32), layer.bias)
    return Norm(weight, bias, float(layer.eps))


def split_qkv(qkv: Linear) -> list[Linear]:
    """Return query, key and value projections of a joint one, whose rows are in this order."""
    biases = [None] * 3 if qkv.bias is None else np.split(qkv.bias, 3)
    return [Linear(weight, bias) for weight, bias in zip(np.split(qkv.weight, 3), biases, strict=True)]


def scale_outputs(linear: Linear, factors: FloatArray) -> Linear:
    """Return a linear layer and a factor per output `[out]` after it as one linear layer."""
    bias = None if linear.bias is None else linear.bias * factors
    return Linear(linear.weight * factors[:, None], bias)
