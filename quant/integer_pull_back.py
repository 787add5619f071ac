"""The pull-back of an integer graph: integer products forwards and backwards.

Rounding has no derivative and is treated as if it were not there (the straight-through estimator). A slope
that goes back through a product with integer weights is rounded to 8 bits itself, each token by its own
largest entry. Products of activations with each other go back in float.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from ..export.pull_back import build_pull_back
from ..export.pull_back_rules import RULES, Writer, swap_last_axes

SLOPE_LEVELS = 127
TINY = 1e-30  # largest entry of a slope of zeros


def build_integer_pull_back(model: onnx.ModelProto, tunables: Sequence[str]) -> onnx.ModelProto:
    """Return the pull-back graph of a graph with fused integer products.

    A channel beyond the integers is clipped, and its excess added in float. Both together have the derivative
    of the whole channel, so the slope takes the integer way and the excess is held constant.

    Args:
        model: an integer graph of fozo, in ONNX Runtime's own operators.
        tunables: inputs with respect to which gradients are computed.

    Raises:
        ExportError: the graph has an operator without a rule.
    """
    rules = {
        **RULES,
        "QuantizeLinear": pass_rounding,
        "Clip": pass_rounding,  # of integers with fewer bits than their registers
        "MatMulIntegerToFloat": pull_back_integer_product,
    }
    return build_pull_back(model, tunables, rules, held_constant=("Gather",))


def pass_rounding(w: Writer, node: onnx.NodeProto, slopes: list[str]) -> None:
    """Pass the slope: rounding is treated as if it were not there."""
    w.add_slope(node.input[0], slopes[0])


def pull_back_integer_product(w: Writer, node: onnx.NodeProto, slopes: list[str]) -> None:
    """Multiply the slope by the other, transposed operand."""
    left, right, left_scale, right_scale, left_zero, right_zero = node.input[:6]
    if w.is_constant(right):
        w.add_slope(left, _multiply_by_weights(w, slopes[0], right, right_scale))
        return
    operands = ((left, left_scale, left_zero), (right, right_scale, right_zero))
    x, y = (w.node("DequantizeLinear", [name for name in operand if name]) for operand in operands)
    w.add_slope(left, w.node("MatMul", [slopes[0], swap_last_axes(w, y, w.ranks[right])]))
    w.add_slope(right, w.node("MatMul", [swap_last_axes(w, x, w.ranks[left]), slopes[0]]))


def _multiply_by_weights(w: Writer, slope: str, weights: str, scale: str) -> str:
    """Return `slope · (weights ∘ scale)ᵀ`, computed with integers; the scale of a column joins the slope."""
    per_column = w.read_constant(scale).size > 1
    scaled = w.node("Mul", [slope, scale]) if per_column else slope
    largest = w.node("ReduceMax", [w.node("Abs", [scaled]), w.ints(-1)], keepdims=1)
    largest = w.node("Max", [largest, w.scalar(TINY)])
    step = w.constant("pull_back.step", np.asarray(1 / SLOPE_LEVELS, np.float32))
    zero = w.constant("pull_back.zero", np.asarray(128, np.uint8))
    rounded = w.node("QuantizeLinear", [w.node("Div", [scaled, largest]), step, zero])
    transposed = w.constant(f"{weights}/transposed", np.ascontiguousarray(w.read_constant(weights).T))
    rest = w.scalar(1.0) if per_column else scale
    product = w.node(
        "MatMulIntegerToFloat", [rounded, transposed, step, rest, zero, ""], domain="com.microsoft"
    )
    result: str = w.node("Mul", [product, largest])
    return result
