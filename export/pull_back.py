"""Gradients as an inference graph: the reverse-mode derivative of an exported graph, node by node.

The pull-back graph is the exported graph, node for node, and one `If` behind it. Where its condition holds,
the reverse pass computes for each tunable the gradient of Σ ⟨slopes, outputs⟩ + Σ weight · entropy, image by
image. Otherwise the gradients are empty and the graph costs a forward. Only what lies between a tunable and
the outputs is differentiated; there are no gradients of weights. All operators are standard ones.
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
CONDITION = "pull_back"


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
        A graph with the additional inputs `pull_back`, a bool, `logits_slopes` `[N, K]`, `features_slopes`
        `[N, L, F]`, `entropy_weights` `[N]` and `class_offsets` `[K]`, and for each tunable of axes `[S, …]`
        the additional output `<tunable>_gradient` `[N, …]`, or `[0, …]` if `pull_back` is false; all float32.

    Raises:
        ExportError: an operator between tunables and outputs has no rule.
    """
    writer = PullBackWriter(model, tunables, rules, held_constant)
    for output in model.graph.output:
        if output.name in DIFFERENTIATED:
            writer.add_slopes(output)
        if output.name == "logits":
            writer.add_entropy(output)
    for node in reversed(model.graph.node):
        writer.differentiate(node)
    for tunable in tunables:
        writer.add_output(tunable)
    return writer.finish()


class PullBackWriter:
    """A copy of a graph, and the nodes of its derivative.

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
        self._reverse: list[onnx.NodeProto] = []
        self._gradients: list[onnx.ValueInfoProto] = []
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

    def add_entropy(self, logits: onnx.ValueInfoProto) -> None:
        """Add inputs for the weight of each image's entropy H, and the slopes of the weighted entropies.

        With `p` the probabilities, these are `−weight · p ∘ (ln p + H)`. Offsets are added to the logits
        first: far below zero, they leave classes out.
        """
        images, classes = logits.type.tensor_type.shape.dim
        sizes = (("entropy_weights", images), ("class_offsets", classes))
        for name, axis in ((name, size.dim_param or size.dim_value) for name, size in sizes):
            self._graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [axis]))
        self._scope = "entropy"
        log_p = self.node("LogSoftmax", [self.node("Add", [logits.name, "class_offsets"])], axis=-1)
        p = self.node("Exp", [log_p])
        negative = self.node("ReduceSum", [self.node("Mul", [p, log_p]), self.ints(-1)], keepdims=1)
        slope = self.node("Mul", [p, self.node("Sub", [negative, log_p])])
        weights = self.node("Unsqueeze", ["entropy_weights", self.ints(-1)])
        self.add_slope(logits.name, self.node("Mul", [slope, weights]))

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
        slope, gradient = self._sum_slopes(tunable), f"{tunable}_gradient"
        if slope is None:
            raise ExportError(f"no output of this model's graph depends on the tunable {tunable}")
        self._reverse.append(helper.make_node("Identity", [slope], [_name_result("then", gradient)]))
        self._gradients.append(helper.make_tensor_value_info(gradient, TensorProto.FLOAT, shape))

    def finish(self) -> onnx.ModelProto:
        """Return the graph: the forward, and the reverse pass in a branch of an `If`."""
        in_front, inside = self._split_reverse_pass()
        empty = [_make_empty_gradient(gradient) for gradient in self._gradients]
        node = helper.make_node(
            "If",
            [CONDITION],
            [gradient.name for gradient in self._gradients],
            name=CONDITION,
            then_branch=_make_branch("then", inside, self._gradients),
            else_branch=_make_branch("else", empty, self._gradients),
        )
        self._graph.node.extend([*in_front, node])
        self._graph.input.append(helper.make_tensor_value_info(CONDITION, TensorProto.BOOL, []))
        self._graph.output.extend(self._gradients)
        return self._model

    def _split_reverse_pass(self) -> tuple[list[onnx.NodeProto], list[onnx.NodeProto]]:
        """Return the nodes of the reverse pass that stand in front of the `If`, and those inside.

        What depends on constants alone, such as transposed weights, is in front, where the runtime folds it.
        So are the shapes of the forward's tensors: inside, a shape would keep its whole tensor in memory.
        """
        fixed = {"", *self._constants}
        forward = {output for node in self._graph.node for output in node.output}
        in_front, inside = [], []
        for node in self._reverse:
            if fixed.issuperset(node.input):
                fixed.update(node.output)
                in_front.append(node)
            elif node.op_type == "Shape" and forward.issuperset(node.input):
                in_front.append(node)
            else:
                inside.append(node)
        return in_front, inside

    def add_slope(self, tensor: str, slope: str) -> None:
        """Add a term to the slope of a tensor, unless it is a constant."""
        if tensor in self.varying:
            self._slopes.setdefault(tensor, []).append(slope)

    def node(self, op: str, inputs: list[str], *, outputs: int = 1, **attributes: object) -> Any:
        """Append a node to the reverse pass and return the name of its output, or a list of names."""
        self._count += 1
        name = f"pull_back/{self._scope}/{op.lower()}.{self._count}"
        names = [name] if outputs == 1 else [f"{name}.{index}" for index in range(outputs)]
        self._reverse.append(helper.make_node(op, inputs, names, name=name, **attributes))
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


def _name_result(branch: str, gradient: str) -> str:
    """Return the name of a gradient inside of a branch; names of subgraphs differ from all around them."""
    return f"{CONDITION}/{branch}/{gradient}"


def _make_branch(
    name: str, nodes: Sequence[onnx.NodeProto], gradients: Sequence[onnx.ValueInfoProto]
) -> onnx.GraphProto:
    outputs = []
    for gradient in gradients:
        output = onnx.ValueInfoProto(name=_name_result(name, gradient.name))
        output.type.tensor_type.elem_type = TensorProto.FLOAT
        outputs.append(output)
    return helper.make_graph(nodes, name, [], outputs)


def _make_empty_gradient(gradient: onnx.ValueInfoProto) -> onnx.NodeProto:
    """Return a constant of no images, and no prompts."""
    axes = gradient.type.tensor_type.shape.dim[1:]
    values = np.zeros((0, *(axis.dim_value for axis in axes)), np.float32)
    name = _name_result("else", gradient.name)
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(values))


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
