"""Writer of integer convolutions: uint8 inputs times int8 weights, in every branch of a residual network.

A convolution reads integers and gives integers (QLinearConv), which is the form with fast kernels. Its output
has 8 bits and a scale for each channel, whatever the bits of its input: the scale of a channel goes into that
of its weights, so that the operator's own output scale is 1. Batch norms, sums, ReLU and pooling stay in
float, so statistics of the batch and addends to norms work as in the float graph.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from ..engine.model import FloatArray
from .calibration import Range
from .clip_search import search_unsigned_grid, search_weight_scales
from .convolutions import ConvolutionRanges, list_graphs
from .grid import Grid, find_largest, fit_unsigned_grid, quantise_weight
from .settings import BitWidths

_OUTPUT_ZERO = 128
_SMALLEST_SIZE = 1e-12  # of a channel that is always zero


def write_integer_convolutions(
    model: onnx.ModelProto,
    ranges: Mapping[str, ConvolutionRanges],
    bits: Mapping[str, BitWidths],
) -> onnx.ModelProto:
    """Return the graph with some of its convolutions on integers.

    Args:
        model: the graph in float; it is not changed.
        ranges: of the convolutions, by name of the weight.
        bits: of the convolutions to write; all others stay in float.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    grids = {weight: choose_input_grid(ranges[weight], widths.activations) for weight, widths in bits.items()}
    for weight, widths in bits.items():
        values = numpy_helper.to_array(constants[weight])
        scale = np.maximum(np.max(ranges[weight].sizes, axis=0), _SMALLEST_SIZE) / 127
        for name, array in _quantise(values, widths.weights, scale).items():
            constants[f"{weight}/{name}"] = numpy_helper.from_array(array, f"{weight}/{name}")
        constants.update(_make_grid_constants(f"{weight}/input", grids[weight]))
    constants["convolutions/one"] = numpy_helper.from_array(np.float32(1), "convolutions/one")
    constants["convolutions/zero"] = numpy_helper.from_array(np.uint8(_OUTPUT_ZERO), "convolutions/zero")
    for graph in list_graphs(result.graph):
        _rewrite(graph, grids)
    used = {name for graph in list_graphs(result.graph) for node in graph.node for name in node.input}
    del result.graph.initializer[:]
    result.graph.initializer.extend(tensor for name, tensor in constants.items() if name in used)
    return result


def choose_input_grid(ranges: ConvolutionRanges, bits: int) -> Grid:
    """Return the grid of a convolution's input."""
    low, high = ranges.limits
    if bits == 8:
        return fit_unsigned_grid(min(0.0, low), max(0.0, high), 8)
    limits = Range(np.asarray([low]), np.asarray([high]))
    return search_unsigned_grid(limits, np.concatenate(ranges.samples)[:, None], bits, outliers=False)


def _quantise(weight: FloatArray, bits: int, output_scale: FloatArray) -> dict[str, NDArray[np.generic]]:
    """Return the constants that belong to a weight `[M, C, h, w]`, given the scales of its outputs `[M]`."""
    columns = weight.reshape(len(weight), -1).T
    if bits >= 7:
        integers, scale = quantise_weight(columns, bits)
    else:
        scale, largest = search_weight_scales(columns, bits), find_largest(bits)
        integers = np.clip(np.rint(columns / scale), -largest, largest).astype(np.int8)
    return {
        "s8": np.ascontiguousarray(integers.T.reshape(weight.shape)),
        "scale": (scale / output_scale).astype(np.float32),
        "zeros": np.zeros(len(weight), np.int8),
        "output/scale": output_scale.astype(np.float32),
        "output/zeros": np.full(len(weight), _OUTPUT_ZERO, np.uint8),
    }


def _make_grid_constants(name: str, grid: Grid) -> dict[str, onnx.TensorProto]:
    low, high = grid.integers
    values = {"scale": np.float32(grid.scale), "zero": np.uint8(grid.zero)}
    values |= {"smallest": np.uint8(low), "largest": np.uint8(high)}
    return {f"{name}/{k}": numpy_helper.from_array(np.asarray(v), f"{name}/{k}") for k, v in values.items()}


def _rewrite(graph: onnx.GraphProto, grids: Mapping[str, Grid]) -> None:
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type == "Conv" and node.input[1] in grids:
            nodes += _make_convolution(node, grids[node.input[1]])
        else:
            nodes.append(node)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def _make_convolution(node: onnx.NodeProto, grid: Grid) -> list[onnx.NodeProto]:
    """Return the nodes of an integer convolution in place of a float one."""
    x, weight = node.input
    output = node.output[0]
    integers, scale, zero = f"{output}/input", f"{weight}/input/scale", f"{weight}/input/zero"
    register = integers if grid.bits == 8 else f"{integers}/register"
    nodes = [helper.make_node("QuantizeLinear", [x, scale, zero], [register], name=register)]
    if grid.bits < 8:
        limits = [f"{weight}/input/smallest", f"{weight}/input/largest"]
        nodes.append(helper.make_node("Clip", [register, *limits], [integers], name=integers))
    inputs = [integers, scale, zero, *(f"{weight}/{name}" for name in ("s8", "scale", "zeros"))]
    product = helper.make_node(
        "QLinearConv", [*inputs, "convolutions/one", "convolutions/zero"], [f"{output}/u8"], name=node.name
    )
    product.attribute.extend(node.attribute)
    outputs = [f"{output}/u8", f"{weight}/output/scale", f"{weight}/output/zeros"]
    return [
        *nodes,
        product,
        helper.make_node("DequantizeLinear", outputs, [output], name=f"{output}/float", axis=1),
    ]
