"""Writes the integer form of a graph: uint8 activations times int8 weights, everything else as it was.

In two dialects. `fused` uses ONNX Runtime's own MatMulIntegerToFloat, bias included; `standard` writes the
same computation with QuantizeLinear, DequantizeLinear and MatMul, for any runtime to read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from .calibration import Range
from .grid import Grid, signed_grid, unsigned_grid, weight_grid
from .products import Operand, Product

DIALECTS = ("fused", "standard")
RUNTIME_DOMAIN = "com.microsoft"


def write_integer(
    model: onnx.ModelProto,
    products: Collection[Product],
    ranges: Mapping[str, Range],
    *,
    dialect: str = "fused",
    weight_bits: int = 8,
) -> onnx.ModelProto:
    """The graph with some of its products on integers.

    Args:
        model: the graph in float; it is left as it is.
        products: which of its products; the others stay in float.
        ranges: of every activation that these quantise, by name.
        dialect: `fused` or `standard`.
        weight_bits: 8, or 7 (see `weight_grid`).
    """
    writer = _Writer(model.graph, ranges, weight_bits, fused=dialect == "fused")
    by_node = {product.node: product for product in products}
    merged = {product.output for product in products if product.bias}
    for node in model.graph.node:
        if node.name in by_node:
            writer.product(by_node[node.name])
        elif not merged.intersection(node.output):
            writer.nodes.append(node)
    graph = onnx.GraphProto(name=model.graph.name, input=model.graph.input, output=model.graph.output)
    nodes = _reached(writer.nodes, {value.name for value in graph.output})
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    graph.initializer.extend(tensor for name, tensor in writer.weights.items() if name in used)
    opsets = list(model.opset_import)
    if any(node.domain == RUNTIME_DOMAIN for node in nodes):
        opsets.append(helper.make_opsetid(RUNTIME_DOMAIN, 1))
    return helper.make_model(
        graph, opset_imports=opsets, producer_name=model.producer_name, ir_version=model.ir_version
    )


def activation_grid(product: Product, ranges: Mapping[str, Range]) -> Grid:
    """Return the grid of integers for the left side of a product."""
    if product.left.is_bytes:
        return Grid(1.0, 0, signed=False)
    # Channels are told apart where the weight reads them, not before heads are put side by side.
    separable = product.weight is not None and not product.left.moves
    return unsigned_grid(ranges[product.left.tensor], outliers=separable)


def _reached(nodes: list[onnx.NodeProto], wanted: set[str]) -> list[onnx.NodeProto]:
    """The nodes that the wanted tensors depend on, in their order."""
    kept = []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            kept.append(node)
            wanted.update(node.input)
    return kept[::-1]


class _Writer:
    """The nodes written so far, and which tensors have been quantised."""

    def __init__(
        self, graph: onnx.GraphProto, ranges: Mapping[str, Range], weight_bits: int, *, fused: bool
    ) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights = {tensor.name: tensor for tensor in graph.initializer}
        self._original = {node.name: node for node in graph.node}
        self._ranges = ranges
        self._bits = weight_bits
        self._fused = fused
        self._written: set[str] = set()
        self._done: dict[tuple[str, Grid], str] = {}

    def product(self, product: Product) -> None:
        """Writes a product, with its bias, under the name it had."""
        grid = activation_grid(product, self._ranges)
        left = self._operand(product.left, grid)
        output = product.output if not grid.outliers else f"{product.output}/clipped"
        if product.weight is not None:
            weight = numpy_helper.to_array(self.weights[product.weight])
            integers, scale = weight_grid(weight, self._bits)
            right = self._constant(f"{product.weight}/s8", integers)
            self._multiply(product, left, grid, right, scale, output)
            if grid.outliers:
                self._add_excess(product, grid, weight, output)
        else:
            assert product.right is not None
            right_grid = signed_grid(self._ranges[product.right.tensor], self._bits)
            right = self._operand(product.right, right_grid)
            self._multiply(product, left, grid, right, np.float32(right_grid.scale), output)

    def _operand(self, operand: Operand, grid: Grid) -> str:
        """The integers of an operand where the product reads them."""
        name = operand.tensor if operand.is_bytes else self._quantised(operand.tensor, grid)
        suffix = name.removeprefix(operand.tensor) or "/bytes"
        for move in operand.moves:
            node = onnx.NodeProto()
            node.CopyFrom(self._original[move])
            node.name, node.input[0], node.output[0] = f"{move}{suffix}", name, f"{node.output[0]}{suffix}"
            name = node.output[0]
            if name not in self._written:
                self._append(node)
        return name

    def _quantised(self, tensor: str, grid: Grid) -> str:
        """The integers of a tensor on a grid; several grids of one tensor get names of their own."""
        if (tensor, grid) not in self._done:
            name = f"{tensor}/{'s8' if grid.signed else 'u8'}"
            if name in self._written:
                name += f"/{len(self._done)}"
            self._node("QuantizeLinear", [tensor, *self._grid(name, grid)], name)
            self._done[tensor, grid] = name
        return self._done[tensor, grid]

    def _grid(self, name: str, grid: Grid) -> list[str]:
        """Scale and zero of a grid as constants."""
        zero = np.asarray(grid.zero, np.int8 if grid.signed else np.uint8)
        scale = np.float32(grid.scale)
        return [self._constant(f"{name}/scale", scale), self._constant(f"{name}/zero", zero)]

    def _multiply(
        self,
        product: Product,
        left: str,
        grid: Grid,
        right: str,
        scale: NDArray[np.float32] | np.float32,
        output: str,
    ) -> None:
        left_grid = self._grid(f"{product.name}/left", grid)
        right_scale = self._constant(f"{product.name}/right/scale", scale)
        if self._fused:
            inputs = [left, right, left_grid[0], right_scale, left_grid[1], "", product.bias or ""]
            self._node("MatMulIntegerToFloat", inputs, output, domain=RUNTIME_DOMAIN)
            return
        zero = self._constant(f"{product.name}/right/zero", np.zeros(np.shape(scale), np.int8))
        axis = {"axis": 1} if np.ndim(scale) else {}
        sides = (
            self._node("DequantizeLinear", [left, *left_grid], f"{output}/left"),
            self._node("DequantizeLinear", [right, right_scale, zero], f"{output}/right", **axis),
        )
        plain = output if product.bias is None else f"{output}/product"
        self._node("MatMul", sides, plain)
        if product.bias is not None:
            self._node("Add", [plain, product.bias], output)

    def _add_excess(self, product: Product, grid: Grid, weight: NDArray[np.float32], clipped: str) -> None:
        """Adds, in float, what saturates in the outlier channels: `(x - clip(x)) @ weight` for these."""
        assert product.weight is not None
        rows = self._constant(f"{product.output}/rows", weight[list(grid.outliers)])
        overflow = f"{product.output}/overflow"
        self._node("MatMul", [self._excess(product.left.tensor, grid), rows], overflow)
        self._node("Add", [clipped, overflow], product.output)

    def _excess(self, x: str, grid: Grid) -> str:
        """What the grid cannot hold of its outlier channels, `[…, number of outliers]`."""
        excess = f"{x}/excess"
        if excess not in self._written:
            channels = self._constant(f"{x}/outliers", np.asarray(grid.outliers, np.int64))
            low, high = (self._constant(f"{x}/limit/{v}", np.float32(v)) for v in grid.limits)
            outliers = self._node("Gather", [x, channels], f"{x}/beyond", axis=-1)
            clipped = self._node("Clip", [outliers, low, high], f"{x}/clipped")
            self._node("Sub", [outliers, clipped], excess)
        return excess

    def _constant(self, name: str, value: NDArray[np.generic] | np.generic) -> str:
        if name not in self.weights:
            self.weights[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def _node(self, op: str, inputs: Iterable[str], output: str, **attributes: object) -> str:
        self._append(helper.make_node(op, list(inputs), [output], name=output, **attributes))
        return output

    def _append(self, node: onnx.NodeProto) -> None:
        self.nodes.append(node)
        self._written.update(node.output)
