"""Writer of ONNX graphs whose nodes and weights are named after the modules they come from."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from ..engine.model import FloatArray

# Lengths of axes; a string is the name of a dynamic one.
Axes = tuple[int | str, ...]
# Inputs or outputs of a graph: element type and axes by name.
Values = dict[str, tuple[int, Axes]]


class OnnxBuilder:
    """Writer of one graph; its methods append nodes or constants and return the name of the result.

    Node names are scopes with slashes (`blocks.0/attn/qk`). Weights are named after the PyTorch parameters
    that they come from, where there is one. Each branch of an `If` node has its own builder (`branch`), which
    may read every value of this one; constants are shared by all.
    """

    def __init__(self) -> None:
        self._prefix = ""
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, onnx.TensorProto] = {}

    def branch(self, prefix: str) -> OnnxBuilder:
        """Return a builder for a branch of an `If` node; it puts a prefix before the names of its nodes."""
        inner = OnnxBuilder()
        inner._prefix, inner._initializers = prefix, self._initializers
        return inner

    def scope(self, prefix: str) -> OnnxBuilder:
        """Return a builder of the same graph that puts a prefix before the names of its nodes.

        It writes the same weights under other nodes, so that one module can be computed twice.
        """
        inner = OnnxBuilder()
        inner._prefix, inner._initializers, inner._nodes = prefix, self._initializers, self._nodes
        return inner

    def choose(
        self, condition: str, branches: list[tuple[OnnxBuilder, list[str]]], outputs: list[str], name: str
    ) -> None:
        """Append an `If` node: the first branch where the condition holds, else the second.

        Args:
            condition: a boolean scalar.
            branches: two builders, each with the names of its float32 results.
            outputs: names of the results outside of the branches.
            name: name of the node.
        """
        then_branch, else_branch = (
            helper.make_graph(
                builder._nodes,
                builder._prefix.strip("/"),
                [],
                [helper.make_tensor_value_info(result, onnx.TensorProto.FLOAT, None) for result in results],
            )
            for builder, results in branches
        )
        node = helper.make_node(
            "If", [condition], outputs, name=name, then_branch=then_branch, else_branch=else_branch
        )
        self._nodes.append(node)

    def weight(self, name: str, values: FloatArray | NDArray[np.int64]) -> str:
        """Add a constant, float32 or int64, unless the name exists; float64 is rounded to float32."""
        if name not in self._initializers:
            array = values.astype(np.float32) if np.issubdtype(values.dtype, np.floating) else values
            self._initializers[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def ints(self, *values: int) -> str:
        """Return a constant int64 vector, shared by all nodes that read the same values."""
        return self.weight("ints" + "".join(f"_{value}" for value in values), np.asarray(values, np.int64))

    def node(
        self, op: str, inputs: list[str], name: str, *, output: str | None = None, **attributes: object
    ) -> str:
        """Append a node with one output, by default named like the node."""
        name = self._prefix + name
        self._nodes.append(helper.make_node(op, inputs, [output or name], name=name, **attributes))
        return output or name

    def linear(self, x: str, weight: FloatArray, bias: FloatArray | None, name: str) -> str:
        """Append `x @ weight.T + bias` with `weight` `[out, in]` as PyTorch stores it."""
        y = self.node("MatMul", [x, self.weight(f"{name}.weight", weight.T)], f"{name}/matmul")
        return y if bias is None else self.node("Add", [y, self.weight(f"{name}.bias", bias)], f"{name}/bias")

    def reshape(self, x: str, shape: tuple[int, ...], name: str) -> str:
        """Append a reshape; 0 keeps the length of an axis, -1 infers it."""
        return self.node("Reshape", [x, self.ints(*shape)], name)

    def slice(self, x: str, start: int, stop: int, axis: int, name: str) -> str:
        """Append `x[..., start:stop, ...]` along one axis."""
        return self.node("Slice", [x, self.ints(start), self.ints(stop), self.ints(axis)], name)

    def split(self, x: str, axis: int, outputs: list[str], name: str) -> None:
        """Append a split of `x` along an axis into equal pieces, named by `outputs`."""
        node = helper.make_node("Split", [x], outputs, name=name, axis=axis, num_outputs=len(outputs))
        self._nodes.append(node)

    def model(
        self, inputs: Values, outputs: Values, opset: int, producer: str, name: str = "vit"
    ) -> onnx.ModelProto:
        """Return the model of all nodes and constants so far."""

        def make_infos(values: Values) -> list[onnx.ValueInfoProto]:
            return [helper.make_tensor_value_info(name, kind, axes) for name, (kind, axes) in values.items()]

        graph = helper.make_graph(
            self._nodes, name, make_infos(inputs), make_infos(outputs), list(self._initializers.values())
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", opset)], producer_name=producer
        )
        # The oldest file format that has this operator set: runtimes refuse formats newer than they know.
        model.ir_version = helper.find_min_ir_version_for(model.opset_import)
        return model
