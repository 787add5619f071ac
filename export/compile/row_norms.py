"""Layer norms with a gain and a bias for each row, in the form that ONNX Runtime computes fastest."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from .tensor import ExpressionGraph


def separate_gains(graph: ExpressionGraph, network: onnx.GraphProto, width: int) -> None:
    """Replace tunable layer norms by plain ones, products and sums, in place.

    The result is the same. ONNX Runtime takes four times as long for a layer norm whose gain has several rows
    as for one with a single gain, and twice as long for the three operators. With a single row, they would be
    slower than the norm.

    Args:
        graph: around the network, for the gain of plain norms.
        network: nodes without initializers.
        width: D, of the rows that are normalised.
    """
    computed = {name for node in network.node for name in node.output}
    nodes: list[onnx.NodeProto] = []
    for node in network.node:
        if node.op_type == "LayerNormalization" and node.input[1] in computed:
            nodes.extend(_separate(graph, node, width))
        else:
            nodes.append(node)
    del network.node[:]
    network.node.extend(nodes)


def _separate(graph: ExpressionGraph, node: onnx.NodeProto, width: int) -> list[onnx.NodeProto]:
    """Return a plain layer norm, a product with the gain, and a sum with the bias."""
    (x, gain, bias), (result,) = node.input, node.output
    plain = onnx.NodeProto()
    plain.CopyFrom(node)
    plain.input[:] = [x, graph.constant([1.0] * width, np.float32).name]
    plain.output[:] = [f"{result}/normalized"]
    return [
        plain,
        helper.make_node("Mul", [plain.output[0], gain], [f"{result}/scaled"], name=f"{node.name}/scaled"),
        helper.make_node("Add", [f"{result}/scaled", bias], [result], name=f"{node.name}/sum"),
    ]
