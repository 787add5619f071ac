"""Derivatives of operators: each rule adds the slopes of a node's inputs, given those of its outputs.

A rule covers what the exporter's graphs contain: where two tensors are added or multiplied, the one that
depends on tunables has the shape of the result, or one row that stands for all images. The first axis of
every slope is that of the images, also where a tunable has one row for all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper


class Writer(Protocol):
    """Interface of the graph that rules append to; see `pull_back.PullBackWriter`."""

    ranks: dict[str, int]
    varying: set[str]

    def add_slope(self, tensor: str, slope: str) -> None:
        """Add a term to the slope of a tensor."""

    def node(self, op: str, inputs: list[str], *, outputs: int = 1, **attributes: object) -> Any:
        """Append a node and return the name of its output, or a list of names."""

    def scalar(self, value: float) -> str:
        """Return the name of a constant float32 scalar."""

    def ints(self, *values: int) -> str:
        """Return the name of a constant int64 vector."""

    def read_constant(self, tensor: str) -> NDArray[Any]:
        """Return the values of a stored tensor."""

    def constant(self, name: str, values: NDArray[Any]) -> str:
        """Store a tensor and return its name."""

    def is_constant(self, tensor: str) -> bool:
        """Return whether a tensor is stored in the graph."""

    def read_ints(self, tensor: str) -> list[int]:
        """Return the values of a constant int64 vector."""

    def request_outputs(self, node: onnx.NodeProto, count: int) -> list[str]:
        """Return the names of a node's first outputs."""


Rule = Callable[[Writer, onnx.NodeProto, list[str]], None]


def pull_back_add(w: Writer, node: onnx.NodeProto, slopes: list[str]) -> None:
    """Pass the slope to both inputs."""
    for tensor in node.input:
        w.add_slope(tensor, slopes[0])


def pull_back_sub(w: Writer, node: onnx.NodeProto, slopes: list[str]) -> None:
    """Pass the slope to the first input and its negative to the second."""
    x, y = node.input
    w.add_slope(x, slopes[0])
    if y in w.varying:
        w.add_slope(y, w.node("Neg", [slopes[0]]))


def pull_back_mul(w: Writer, node: onnx.NodeProto, slopes: list[str]) -> None:
    """Multiply the slope by the other input."""
    x, y = node.input
    for tensor, factor in ((x, y), (y, x)):
        if tensor in w.varying:
            w.add_slope(tensor, w.node("Mul", [slopes[0], factor]))


def pull_back_matmul(w: Writer, node: onnx.NodeProto, slopes: list[str]) -> None:
    """Multiply the slope by the other, transposed input."""
    x, y = node.input
    if x in w.varying:
        w.add_slope(x, w.node("MatMul", [slopes[0], swap_last_axes(w, y, w.ranks[y])]))
    if y in w.varying:
        w.add_slope(y, w.node("MatMul", [swap_last_axes(w, x, w.ranks[x]), slopes[0]]))


def pull_back_gemm(w: Writer, node: onnx.NodeProto, slopes: list[str]) -> None:
    """Multiply the slope by the transposed weight."""
    x, weight = node.input[:2]
    w.add_slope(x, w.node("MatMul", [slopes[0], swap_last_axes(w, weight, 2)]))


def pull_back_transpose(w: Writer, node: onnx.NodeProto, slopes: list[str]) -> None:
    """Transpose the slope back."""
    perm = _attribute(node, "perm")
    inverse = sorted(range(len(perm)), key=perm.__getitem__)
    w.add_slope(node.input[0], w.node("Transpose", [slopes[0]], perm=inverse))


def pull_back_reshape(w: Writer, node: onnx.NodeProto, slopes: list[str]) -> None:
    """Reshape the slope back; its first axis stays that of the images."""
    shape = [w.ints(-1), w.node("Shape", [node.input[0]], start=1)]
    w.add_slope(node.input[0], w.node("Reshape", [slopes[0], w.node("Concat", shape, axis=0)]))


def pull_back_expand(w: Writer, node: onnx.NodeProto, slopes: list[str]) -> None:
    """Pass the slope: each image has its own."""
    w.add_slope(node.input[0], slopes[0])


def pull_back_slice(w: Writer, node: onnx.NodeProto, slopes: list[str]) -> None:
    """Pad the slope with zeros where the input was cut off at either end of one axis."""
    x = node.input[0]
    (start,), (stop,), (axis,) = (w.read_ints(tensor) for tensor in node.input[1:4])
    length = w.node("Shape", [x], start=axis, end=axis + 1)
    after = w.node("Sub", [length, w.ints(stop)])
    pads = [w.ints(*[0] * axis, start, *[0] * (w.ranks[x] - 1)), after]
    if behind := w.ranks[x] - 1 - axis:
        pads.append(w.ints(*[0] * behind))
    w.add_slope(x, w.node("Pad", [slopes[0], w.node("Concat", pads, axis=0)]))


def pull_back_concat(w: Writer, node: onnx.NodeProto, slopes: list[str]) -> None:
    """Split the slope as the inputs were joined."""
    if len(node.input) == 1:
        w.add_slope(node.input[0], slopes[0])
        return
    axis = _attribute(node, "axis")
    lengths = [w.node("Shape", [tensor], start=axis, end=axis + 1) for tensor in node.input]
    pieces = w.node(
        "Split", [slopes[0], w.node("Concat", lengths, axis=0)], outputs=len(node.input), axis=axis
    )
    for tensor, piece in zip(node.input, pieces, strict=True):
        w.add_slope(tensor, piece)


def pull_back_split(w: Writer, node: onnx.NodeProto, slopes: list[str]) -> None:
    """Join the slopes as the input was split."""
    w.add_slope(node.input[0], w.node("Concat", slopes, axis=_attribute(node, "axis")))


def pull_back_softmax(w: Writer, node: onnx.NodeProto, slopes: list[str]) -> None:
    """Compute `p ∘ s − p Σ (p ∘ s)`, the derivative of `p = softmax(x)` over the last axis."""
    p = node.output[0]
    product = w.node("Mul", [slopes[0], p])
    total = w.node("ReduceSum", [product, w.ints(-1)], keepdims=1)
    w.add_slope(node.input[0], w.node("Sub", [product, w.node("Mul", [p, total])]))


def pull_back_layer_norm(w: Writer, node: onnx.NodeProto, slopes: list[str]) -> None:
    """Compute the derivative of `y = gain ∘ z + bias` with `z = (x − mean) / std` over the last axis.

    With `s` the slope of `z`, that of `x` is `(s − mean(s) − z mean(s ∘ z)) / std`. Those of gain and bias
    are sums over the tokens of each image.
    """
    x, gain, bias = node.input
    _, mean, inverse_std = w.request_outputs(node, 3)
    z = w.node("Mul", [w.node("Sub", [x, mean]), inverse_std])
    if gain in w.varying:
        w.add_slope(gain, _sum_tokens(w, w.node("Mul", [slopes[0], z]), x))
    if bias in w.varying:
        w.add_slope(bias, _sum_tokens(w, slopes[0], x))
    if x in w.varying:
        s = w.node("Mul", [slopes[0], gain])
        mean_slope = w.node("ReduceMean", [s, w.ints(-1)], keepdims=1)
        along = w.node("ReduceMean", [w.node("Mul", [s, z]), w.ints(-1)], keepdims=1)
        across = w.node("Sub", [w.node("Sub", [s, mean_slope]), w.node("Mul", [z, along])])
        w.add_slope(x, w.node("Mul", [across, inverse_std]))


def pull_back_normalisation(w: Writer, node: onnx.NodeProto, slopes: list[str]) -> None:
    """Compute `(s − y Σ (s ∘ y)) / ‖x‖`, the derivative of `y = x / ‖x‖` over the last axis."""
    x, y = node.input[0], node.output[0]
    length = w.node("ReduceL2", [x, w.ints(-1)], keepdims=1)
    along = w.node("ReduceSum", [w.node("Mul", [slopes[0], y]), w.ints(-1)], keepdims=1)
    across = w.node("Sub", [slopes[0], w.node("Mul", [y, along])])
    w.add_slope(x, w.node("Div", [across, length]))


def _sum_tokens(w: Writer, values: str, x: str) -> str:
    """Return the sum of values over the tokens of each image, `[N, 1, D]` of `[N, T, D]`, the shape of x.

    It is a product with a row of ones, which runtimes compute several times as fast as a sum over this axis.
    """
    length = w.node("Concat", [w.ints(1, 1), w.node("Shape", [x], start=1, end=2)], axis=0)
    one = numpy_helper.from_array(np.ones(1, np.float32))
    total: str = w.node("MatMul", [w.node("ConstantOfShape", [length], value=one), values])
    return total


def pull_back_gelu(w: Writer, node: onnx.NodeProto, slopes: list[str]) -> None:
    """Multiply the slope by the derivative of GELU, exact (`Φ(x) + x φ(x)`) or in its tanh form.

    The rules compute twice the derivative, and halve the slope: the runtime makes this half a part of the
    product that the slope comes from.
    """
    x = node.input[0]
    exact = _attribute(node, "approximate", b"none") == b"none"
    doubled = _derive_double_gelu(w, x) if exact else _derive_double_tanh_gelu(w, x)
    w.add_slope(x, w.node("Mul", [w.node("Mul", [slopes[0], w.scalar(0.5)]), doubled]))


def _derive_double_gelu(w: Writer, x: str) -> str:
    """Derive `x (1 + erf u)` with `u = x / √2`: `1 + erf u + u exp(ln(2 / √π) − u²)`."""
    u = w.node("Mul", [x, w.scalar(math.sqrt(0.5))])
    exponent = w.node("Sub", [w.scalar(math.log(2 / math.sqrt(math.pi))), w.node("Mul", [u, u])])
    density = w.node("Mul", [u, w.node("Exp", [exponent])])
    doubled: str = w.node("Add", [w.node("Add", [w.node("Erf", [u]), density]), w.scalar(1.0)])
    return doubled


def _derive_double_tanh_gelu(w: Writer, x: str) -> str:
    """Derive `x (1 + t)`, `t = tanh(c (x + a x³))`: `1 + t + c x (1 − t²) (1 + 3 a x²)`."""
    c, a = math.sqrt(2 / math.pi), 0.044715
    square = w.node("Mul", [x, x])
    inner = w.node("Mul", [x, w.node("Add", [w.node("Mul", [square, w.scalar(c * a)]), w.scalar(c)])])
    t = w.node("Tanh", [inner])
    slope = w.node("Add", [w.node("Mul", [square, w.scalar(3 * c * a)]), w.scalar(c)])
    sech = w.node("Sub", [w.scalar(1.0), w.node("Mul", [t, t])])
    bend = w.node("Mul", [w.node("Mul", [x, sech]), slope])
    doubled: str = w.node("Add", [w.node("Add", [t, bend]), w.scalar(1.0)])
    return doubled


def pull_back_sigmoid(w: Writer, node: onnx.NodeProto, slopes: list[str]) -> None:
    """Multiply the slope by `y (1 − y)`."""
    y = node.output[0]
    derivative = w.node("Mul", [y, w.node("Sub", [w.scalar(1.0), y])])
    w.add_slope(node.input[0], w.node("Mul", [slopes[0], derivative]))


def pull_back_relu(w: Writer, node: onnx.NodeProto, slopes: list[str]) -> None:
    """Keep the slope where the input is positive."""
    positive = w.node("Greater", [node.input[0], w.scalar(0.0)])
    w.add_slope(node.input[0], w.node("Where", [positive, slopes[0], w.scalar(0.0)]))


RULES: Mapping[str, Rule] = {
    "Add": pull_back_add,
    "Concat": pull_back_concat,
    "Expand": pull_back_expand,
    "Gelu": pull_back_gelu,
    "Gemm": pull_back_gemm,
    "LayerNormalization": pull_back_layer_norm,
    "LpNormalization": pull_back_normalisation,
    "MatMul": pull_back_matmul,
    "Mul": pull_back_mul,
    "Relu": pull_back_relu,
    "Reshape": pull_back_reshape,
    "Sigmoid": pull_back_sigmoid,
    "Slice": pull_back_slice,
    "Softmax": pull_back_softmax,
    "Split": pull_back_split,
    "Sub": pull_back_sub,
    "Transpose": pull_back_transpose,
}


def swap_last_axes(w: Writer, tensor: str, rank: int) -> str:
    """Return a tensor with its last two axes exchanged; the runtime folds this into products."""
    perm = list(range(rank))
    perm[-2:] = perm[:-3:-1]
    swapped: str = w.node("Transpose", [tensor], perm=perm)
    return swapped


def _attribute(node: onnx.NodeProto, name: str, default: object = None) -> Any:
    values = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    return values.get(name, default)
