"""Matrix products of a graph that can run on integers, and the tensors to quantise for them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import onnx
from onnx import TensorProto

from ..engine.runtime.graph_contract import CLASSIFIER

# Operators that only move values: on bytes, they move a quarter of the memory.
MOVES = ("Reshape", "Transpose")


@dataclass(frozen=True)
class Operand:
    """One side of a product.

    Attributes:
        tensor: name of the tensor that is quantised.
        moves: names of the nodes that reshape and transpose it on its way to the product, in order.
        is_bytes: whether the tensor holds bytes of an image, which need no quantisation.
    """

    tensor: str
    moves: tuple[str, ...] = ()
    is_bytes: bool = False


@dataclass(frozen=True)
class Product:
    """A MatMul that can run on integers.

    Attributes:
        name: name of the layer, for messages.
        node: name of the MatMul node.
        input: name of the tensor on its left side, in float.
        left: the activation on the left side.
        right: the activation on the right side, or None where that is a weight.
        weight: name of the weight `[K, M]`, or None.
        bias: name of the bias `[M]` that a following Add brings in, or None.
        output: name of the product with its bias.
    """

    name: str
    node: str
    input: str
    left: Operand
    right: Operand | None
    weight: str | None
    bias: str | None
    output: str

    @property
    def group(self) -> str:
        """Name of the group: products of a group read the same quantised tensor and are measured together."""
        return self.name if self.right else self.left.tensor


def find_products(model: onnx.ModelProto) -> list[Product]:
    """Find the MatMul nodes of the graph that are worth running on integers, in its order.

    The classifier is a Gemm and stays in float, so that shifted logits are exact. So does the product of
    attention probabilities and values: most probabilities are smaller than the 1/255 that a byte resolves.
    Means, products with a constant on the left, are too small to matter. A classifier that is an input stands
    on the left, and stays in float like one that is a weight. Images with a tunable addend are clipped in
    front of the first product, which stays in float: the addend is finer than bytes.
    """
    search = _Search(model.graph)
    return [
        search.read_product(node)
        for node in model.graph.node
        if node.op_type == "MatMul"
        and not search.is_output_of(node.input[0], "Softmax")
        and not search.is_output_of(node.input[0], "Clip")
        and node.input[0] not in {*search.weights, CLASSIFIER}
    ]


class _Search:
    """Index of a graph: the node that makes each tensor, and the nodes that read it."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.maker = {output: node for node in graph.node for output in node.output}
        self.weights = {tensor.name: tensor for tensor in graph.initializer}
        self.inputs = {value.name: value.type.tensor_type.elem_type for value in graph.input}
        self.uses = Counter(name for node in graph.node for name in node.input)
        self.uses.update(value.name for value in graph.output)
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)

    def is_output_of(self, tensor: str, operator: str) -> bool:
        node = self.maker.get(tensor)
        return bool(node is not None and node.op_type == operator)

    def read_product(self, node: onnx.NodeProto) -> Product:
        left, right = node.input
        is_weight = right in self.weights
        bias, output = self._find_bias(node.output[0]) if is_weight else (None, node.output[0])
        return Product(
            name=node.name.removesuffix("/matmul"),
            node=node.name,
            input=left,
            left=self._find_operand(left),
            right=None if is_weight else self._find_operand(right),
            weight=right if is_weight else None,
            bias=bias,
            output=output,
        )

    def _find_operand(self, tensor: str) -> Operand:
        moves: list[str] = []
        while (node := self.maker.get(tensor)) is not None:
            if node.op_type == "Cast" and self._comes_from_bytes(node.input[0]):
                return Operand(node.input[0], tuple(moves), is_bytes=True)
            if node.op_type not in MOVES or self.uses[tensor] > 1:
                return Operand(tensor, tuple(moves))
            moves.insert(0, node.name)
            tensor = node.input[0]
        return Operand(tensor, tuple(moves))

    def _comes_from_bytes(self, tensor: str) -> bool:
        while (node := self.maker.get(tensor)) is not None and node.op_type in (*MOVES, "Slice"):
            tensor = node.input[0]
        return bool(self.inputs.get(tensor) == TensorProto.UINT8)

    def _find_bias(self, tensor: str) -> tuple[str | None, str]:
        """Return the bias added to a product, if any, and the name of the sum or else of the product."""
        readers = self.readers.get(tensor, [])
        if self.uses[tensor] == 1 and len(readers) == 1 and readers[0].op_type == "Add":
            bias = next(name for name in readers[0].input if name != tensor)
            if bias in self.weights and len(self.weights[bias].dims) == 1:
                return bias, readers[0].output[0]
        return None, tensor
