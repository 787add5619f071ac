"""Gradients as an inference graph: the reverse-mode derivative of an exported graph, node by node.

The pull-back graph has the inputs of the exported one and a slope for each element of `logits` and
`features`. It computes the same outputs, and for each tunable the gradient of Σ ⟨slopes, outputs⟩, image by
image. Only what lies between a tunable and these outputs is differentiated; there are no gradients of
weights. All operators are standard ones.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ..engine.errors import ExportError
from .pull_back_rules import RULES, Rule

DIFFERENTIATED = ("logits", "features")


def build_pull_back(
    model: onnx.ModelProto,
    tunables: Sequence[str],
    rules: Mapping[str, Rule] = RULES,
    held_constant: Collection[str] = (),
) -> onnx.ModelProto:
    """Return the pull-back graph of an exported graph.

    Args:
        model: a graph of the graph contract (docs/bundle.md).
        tunables: inputs with respect to which gradients are computed.
        rules: derivatives by operator.
        held_constant: operators whose outputs are treated as constants.

    Returns:
        A graph with the additional inputs `logits_slopes` `[N, K]` and `features_slopes` `[N, L, F]`, and for
        each tunable of axes `[S, …]` the additional output `<tunable>_gradient` `[N, …]`, all float32.

    Raises:
        ExportError: an operator between tunables and outputs has no rule.
    """
    writer = PullBackWriter(model, tunables, rules, held_constant)
    for output in model.graph.output:
        if output.name in DIFFERENTIATED:
            writer.add_slopes(output)
    for node in reversed(model.graph.node):
        writer.differentiate(node)
    for tunable in tunables:
        writer.add_output(tunable)
    return writer.finish()


class PullBackWriter:
    """A copy of a graph, to which the nodes of its derivative are appended.

    Attributes:
        varying: names of the tensors that depend on a tunable.
        ranks: number of axes of every tensor.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        tunables: Sequence[str],
        rules: Mapping[str, Rule],
        held_constant: Collection[str],
    ) -> None:
        """Copy the graph and find the tensors that depend on the tunables."""
        self._rules = rules
        self._model = onnx.ModelProto()
        self._model.CopyFrom(model)
        self._graph = self._model.graph
        self._constants = {tensor.name: tensor for tensor in self._graph.initializer}
        self._inputs = {value.name: value for value in self._graph.input}
        self._slopes: dict[str, list[str]] = {}
        self._scope = "slopes"
        self._count = 0
        self.ranks = _infer_ranks(model)
        self.varying = set(tunables)
        for node in self._graph.node:
            if node.op_type not in {"Shape", *held_constant} and self.varying.intersection(node.input):
                self.varying.update(node.output)

    def add_slopes(self, output: onnx.ValueInfoProto) -> None:
        """Add an input for the slopes of an output."""
        slopes = self._graph.input.add()
        slopes.CopyFrom(output)
        slopes.name = f"{output.name}_slopes"
        self.add_slope(output.name, slopes.name)

    def differentiate(self, node: onnx.NodeProto) -> None:
        """Add the slopes of a node's inputs, given those of its outputs.

        Raises:
            ExportError: the derivative of its operator is not written here.
        """
        if not self.varying.intersection(node.output):
            return
        self._scope = node.name
        sums = [self._sum_slopes(name) for name in node.output]
        slopes = [slope for slope in sums if slope is not None]
        if not slopes:
            return
        if node.op_type not in self._rules or len(slopes) < len(sums):
            raise ExportError(
                f"this model's graph cannot be differentiated: there is no rule for its node {node.name} "
                f"({node.op_type}); export it without gradients"
            )
        self._rules[node.op_type](self, node, slopes)

    def add_output(self, tunable: str) -> None:
        """Add the gradient of a tunable as an output."""
        axes = self._inputs[tunable].type.tensor_type.shape.dim[1:]
        shape = ["N", *(axis.dim_value or axis.dim_param for axis in axes)]
        self._scope = tunable
        slope, output = self._sum_slopes(tunable), f"{tunable}_gradient"
        if slope is None:
            raise ExportError(f"no output of this model's graph depends on the tunable {tunable}")
        self._graph.node.append(helper.make_node("Identity", [slope], [output], name=output))
        self._graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, shape))

    def finish(self) -> onnx.ModelProto:
        """Return the graph."""
        return self._model

    def add_slope(self, tensor: str, slope: str) -> None:
        """Add a term to the slope of a tensor, unless it is a constant."""
        if tensor in self.varying:
            self._slopes.setdefault(tensor, []).append(slope)

    def node(self, op: str, inputs: list[str], *, outputs: int = 1, **attributes: object) -> Any:
        """Append a node and return the name of its output; a list of names for more than one."""
        self._count += 1
        name = f"pull_back/{self._scope}/{op.lower()}.{self._count}"
        names = [name] if outputs == 1 else [f"{name}.{index}" for index in range(outputs)]
        self._graph.node.append(helper.make_node(op, inputs, names, name=name, **attributes))
        return name if outputs == 1 else names

    def scalar(self, value: float) -> str:
        """Return the name of a constant float32 scalar."""
        return self._add_constant(f"pull_back.scalar_{value!r}", np.asarray(value, np.float32))

    def ints(self, *values: int) -> str:
        """Return the name of a constant int64 vector."""
        name = "pull_back.ints" + "".join(f"_{value}" for value in values)
        return self._add_constant(name, np.asarray(values, np.int64))

    def read_constant(self, tensor: str) -> NDArray[Any]:
        """Return the values of a stored tensor."""
        values: NDArray[Any] = numpy_helper.to_array(self._constants[tensor])
        return values

    def constant(self, name: str, values: NDArray[Any]) -> str:
        """Store a tensor and return its name; storing the same name again changes nothing."""
        return self._add_constant(name, values)

    def is_constant(self, tensor: str) -> bool:
        """Return whether a tensor is stored in the graph."""
        return tensor in self._constants

    def read_ints(self, tensor: str) -> list[int]:
        """Return the values of a constant int64 vector."""
        return [int(value) for value in numpy_helper.to_array(self._constants[tensor]).ravel()]

    def request_outputs(self, node: onnx.NodeProto, count: int) -> list[str]:
        """Return the names of a node's first outputs, those that the graph did not need so far included."""
        copy = next(item for item in self._graph.node if item.name == node.name)
        while len(copy.output) < count:
            copy.output.append(f"{node.name}/output.{len(copy.output)}")
        return list(copy.output)

    def _sum_slopes(self, tensor: str) -> str | None:
        """Return the slope of a tensor, the sum over all nodes that read it."""
        terms = self._slopes.get(tensor, [])
        if not terms:
            return None
        total = terms[0]
        for term in terms[1:]:
            total = self.node("Add", [total, term])
        return total

    def _add_constant(self, name: str, values: NDArray[Any]) -> str:
        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(values, name)
            self._graph.initializer.append(self._constants[name])
        return name


def _infer_ranks(model: onnx.ModelProto) -> dict[str, int]:
    """Return the number of axes of every tensor; foreign operators keep that of their inputs."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = [*graph.value_info, *graph.input, *graph.output]
    shapes = {value.name: value.type.tensor_type for value in values}
    ranks = {name: len(kind.shape.dim) for name, kind in shapes.items() if kind.HasField("shape")}
    ranks |= {tensor.name: len(tensor.dims) for tensor in graph.initializer}
    lengths = {tensor.name: tensor.dims[0] for tensor in graph.initializer if len(tensor.dims) == 1}
    for node in graph.node:
        rank = (
            lengths[node.input[1]]
            if node.op_type == "Reshape"
            else max(map(ranks.__getitem__, node.input[:2]))
        )
        for output in node.output:
            ranks.setdefault(output, rank)
    return ranks
