"""Writer of the integer form of a graph: uint8 activations times int8 weights, all else unchanged.

There are two dialects. `fused` uses ONNX Runtime's own MatMulIntegerToFloat, bias included. `standard` writes
the same computation with QuantizeLinear, DequantizeLinear and MatMul, which any runtime can read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from .grid import Grid
from .layer_integers import LayerIntegers
from .products import Operand, Product
from .weight_blocks import list_attributes, pack_blocks

DIALECTS = ("fused", "standard")
RUNTIME_DOMAIN = "com.microsoft"
_FIRST_ROW = ((0, "start"), (1, "stop"), (1, "axis"))


def write_integer_graph(
    model: onnx.ModelProto,
    products: Collection[Product],
    layers: Mapping[str, LayerIntegers],
    *,
    dialect: str = "fused",
) -> onnx.ModelProto:
    """Return the graph with some of its products on integers.

    Args:
        model: the graph in float; it is not changed.
        products: the products to run on integers; all others stay in float.
        layers: integers of these products, by name.
        dialect: `fused` or `standard`.
    """
    writer = _Writer(model.graph, layers, fused=dialect == "fused")
    by_node = {product.node: product for product in products}
    merged = {product.output for product in products if product.bias}
    for node in model.graph.node:
        if node.name in by_node:
            writer.write_product(by_node[node.name])
        elif not merged.intersection(node.output):
            writer.nodes.append(node)
    graph = onnx.GraphProto(name=model.graph.name, input=model.graph.input, output=model.graph.output)
    nodes = _select_needed(writer.nodes, {value.name for value in graph.output})
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    graph.initializer.extend(tensor for name, tensor in writer.weights.items() if name in used)
    opsets = list(model.opset_import)
    if any(node.domain == RUNTIME_DOMAIN for node in nodes):
        opsets.append(helper.make_opsetid(RUNTIME_DOMAIN, 1))
    return helper.make_model(
        graph, opset_imports=opsets, producer_name=model.producer_name, ir_version=model.ir_version
    )


def _select_needed(nodes: list[onnx.NodeProto], tensors: set[str]) -> list[onnx.NodeProto]:
    """Return the nodes that these tensors depend on, in their order."""
    needed_tensors, needed_nodes = set(tensors), []
    for node in reversed(nodes):
        if needed_tensors.intersection(node.output):
            needed_nodes.append(node)
            needed_tensors.update(node.input)
    return needed_nodes[::-1]


class _Writer:
    """Writer of one graph: the nodes so far, and the tensors that are quantised."""

    def __init__(self, graph: onnx.GraphProto, layers: Mapping[str, LayerIntegers], *, fused: bool) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights = {tensor.name: tensor for tensor in graph.initializer}
        self._original = {node.name: node for node in graph.node}
        self._layers = layers
        self._fused = fused
        self._written: set[str] = set()
        self._quantised: dict[tuple[str, Grid], str] = {}

    def write_product(self, product: Product) -> None:
        """Write a product, with its bias, under its original name."""
        layer = self._layers[product.name]
        if layer.left is None:
            self._write_block_product(product, layer)
            return
        grid = layer.left
        left = self._write_operand(product.left, grid)
        output = product.output if not grid.outliers else f"{product.output}/clipped"
        bias = product.bias
        if layer.bias is not None:
            bias = self._write_constant(f"{product.name}/corrected_bias", layer.bias)
        if layer.weight is not None and layer.scale is not None:
            right = self._write_constant(f"{product.weight}/s8", layer.weight)
            self._multiply(product.name, left, grid, right, layer.scale, bias, output)
            if grid.outliers:
                self._add_excess(product, grid, output)
        else:
            assert product.right is not None and layer.right is not None
            right = self._write_operand(product.right, layer.right)
            self._multiply(product.name, left, grid, right, np.float32(layer.right.scale), bias, output)

    def _write_block_product(self, product: Product, layer: LayerIntegers) -> None:
        """Write the product of a float activation and 4-bit weights.

        The kernel for a single row rounds differently from the one for several. An image that contributes one
        row is given two, so that results do not depend on the number of images.
        """
        assert layer.weight is not None and layer.scale is not None
        name, left, output = product.name, product.input, product.output
        bias = product.bias or ""
        if layer.bias is not None:
            bias = self._write_constant(f"{name}/corrected_bias", layer.bias)
        packed = self._write_constant(f"{product.weight}/u4", pack_blocks(layer.weight))
        scale = self._write_constant(f"{name}/right/scale", layer.scale.T.ravel())
        if layer.single_row:
            left = self._write_node("Concat", [left, left], f"{name}/twice", axis=1)
        self._write_node(
            "MatMulNBits",
            [left, packed, scale, "", "", bias],
            f"{output}/twice" if layer.single_row else output,
            domain=RUNTIME_DOMAIN,
            **list_attributes(layer.weight),
        )
        if layer.single_row:
            first = [self._write_constant(f"rows/{end}", np.asarray([v], np.int64)) for v, end in _FIRST_ROW]
            self._write_node("Slice", [f"{output}/twice", *first], output)

    def _write_operand(self, operand: Operand, grid: Grid) -> str:
        """Write the integers of an operand as the product reads them, and return their name."""
        name = operand.tensor if operand.is_bytes else self._quantise(operand.tensor, grid)
        suffix = name.removeprefix(operand.tensor) or "/bytes"
        for move in operand.moves:
            node = onnx.NodeProto()
            node.CopyFrom(self._original[move])
            node.name, node.input[0], node.output[0] = f"{move}{suffix}", name, f"{node.output[0]}{suffix}"
            name = node.output[0]
            if name not in self._written:
                self._append(node)
        return name

    def _quantise(self, tensor: str, grid: Grid) -> str:
        """Quantise a tensor once per grid, and return the name of its integers."""
        if (tensor, grid) not in self._quantised:
            name = f"{tensor}/{'s8' if grid.signed else 'u8'}"
            if name in self._written:
                name += f"/{len(self._quantised)}"
            rounded = name if grid.bits == 8 else f"{name}/register"
            self._write_node("QuantizeLinear", [tensor, *self._write_grid(name, grid)], rounded)
            if grid.bits < 8:
                self._clip_integers(rounded, grid, name)
            self._quantised[tensor, grid] = name
        return self._quantised[tensor, grid]

    def _clip_integers(self, register: str, grid: Grid, output: str) -> None:
        """Clip integers to the bits of their grid; QuantizeLinear has clipped them to those of a register."""
        kind = np.int8 if grid.signed else np.uint8
        limits = zip(("smallest", "largest"), grid.integers, strict=True)
        names = [self._write_constant(f"{output}/{name}", kind(limit)) for name, limit in limits]
        self._write_node("Clip", [register, *names], output)

    def _write_grid(self, name: str, grid: Grid) -> list[str]:
        """Write scale and zero of a grid as constants, and return their names."""
        zero = np.asarray(grid.zero, np.int8 if grid.signed else np.uint8)
        scale = np.float32(grid.scale)
        return [self._write_constant(f"{name}/scale", scale), self._write_constant(f"{name}/zero", zero)]

    def _multiply(
        self,
        layer: str,
        left: str,
        grid: Grid,
        right: str,
        scale: NDArray[np.floating] | np.float32,
        bias: str | None,
        output: str,
    ) -> None:
        """Write the product of two tensors of integers, and add a bias, under the name of a layer."""
        left_grid = self._write_grid(f"{layer}/left", grid)
        right_scale = self._write_constant(f"{layer}/right/scale", scale)
        if self._fused:
            inputs = [left, right, left_grid[0], right_scale, left_grid[1], "", bias or ""]
            self._write_node("MatMulIntegerToFloat", inputs, output, domain=RUNTIME_DOMAIN)
            return
        zero = self._write_constant(f"{layer}/right/zero", np.zeros(np.shape(scale), np.int8))
        axis = {"axis": 1} if np.ndim(scale) else {}
        operands = (
            self._write_node("DequantizeLinear", [left, *left_grid], f"{output}/left"),
            self._write_node("DequantizeLinear", [right, right_scale, zero], f"{output}/right", **axis),
        )
        matmul = output if bias is None else f"{output}/product"
        self._write_node("MatMul", operands, matmul)
        if bias is not None:
            self._write_node("Add", [matmul, bias], output)

    def _add_excess(self, product: Product, grid: Grid, clipped: str) -> None:
        """Add, in float, what the grid clips in the outlier channels: `(x - clip(x)) @ weight` for these."""
        assert product.weight is not None
        weight = numpy_helper.to_array(self.weights[product.weight])
        rows = self._write_constant(f"{product.output}/rows", weight[list(grid.outliers)])
        overflow = f"{product.output}/overflow"
        self._write_node("MatMul", [self._write_excess(product.left.tensor, grid), rows], overflow)
        self._write_node("Add", [clipped, overflow], product.output)

    def _write_excess(self, x: str, grid: Grid) -> str:
        """Write `x - clip(x)` of the outlier channels, `[…, number of outliers]`, and return its name."""
        excess = f"{x}/excess"
        if excess not in self._written:
            channels = self._write_constant(f"{x}/outliers", np.asarray(grid.outliers, np.int64))
            low, high = (self._write_constant(f"{x}/limit/{v}", np.float32(v)) for v in grid.limits)
            outliers = self._write_node("Gather", [x, channels], f"{x}/beyond", axis=-1)
            clipped = self._write_node("Clip", [outliers, low, high], f"{x}/clipped")
            self._write_node("Sub", [outliers, clipped], excess)
        return excess

    def _write_constant(self, name: str, value: NDArray[np.generic] | np.generic) -> str:
        if name not in self.weights:
            self.weights[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def _write_node(self, operator: str, inputs: Iterable[str], output: str, **attributes: object) -> str:
        self._append(helper.make_node(operator, list(inputs), [output], name=output, **attributes))
        return output

    def _append(self, node: onnx.NodeProto) -> None:
        self.nodes.append(node)
        self._written.update(node.output)
