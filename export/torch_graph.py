"""An ONNX graph computed by PyTorch, so that autograd gives gradients with respect to its inputs.

The graph itself is interpreted, node by node: nothing has to be known of the model, and no weight can be in
the wrong place. It has the operators of fozo's text graphs (docs/bundle.md) and refuses others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from ..engine.errors import ExportError

Attributes = Mapping[str, Any]
Operator = Callable[[list[Tensor], Attributes], Tensor]
# What computes a node, the names of its inputs and of its output, and its attributes.
_Node = tuple[Operator, list[str], str, Attributes]


class TorchGraph:
    """A graph with its weights as tensors that need no gradients."""

    def __init__(self, path: Path) -> None:
        """Load a graph.

        Args:
            path: an ONNX file that has been checked (`check_graph_file`), with all weights in it.

        Raises:
            ExportError: it cannot be read, or has an operator that is not known here.
        """
        try:
            graph = onnx.load_model(path, load_external_data=False).graph
        except Exception as error:  # protobuf and onnx raise kinds of their own
            raise ExportError(f"cannot read the graph {path} ({error}); export the model again") from error
        unknown = sorted({node.op_type for node in graph.node} - _OPERATORS.keys())
        if unknown:
            raise ExportError(
                f"the graph {path} has the operators {', '.join(unknown)}, whose gradients are not known "
                "here; export the model again with this version of fozo"
            )
        self._weights = {
            weight.name: torch.from_numpy(numpy_helper.to_array(weight).copy())
            for weight in graph.initializer
        }
        self._nodes = [
            (_OPERATORS[node.op_type], list(node.input), node.output[0], _read_attributes(node))
            for node in graph.node
        ]

    def __call__(self, inputs: Mapping[str, Tensor], output: str) -> Tensor:
        """Return one output of the graph; only what it depends on is computed.

        Args:
            inputs: every input by name.
            output: its name.
        """
        values = {**self._weights, **inputs}
        for operator, names, result, attributes in self._find_needed(output):
            values[result] = operator([values[name] for name in names if name], attributes)
        return values[output]

    def _find_needed(self, output: str) -> Iterable[_Node]:
        """Return the nodes that an output depends on, in the order of the graph."""
        needed: set[str] = {output}
        nodes: list[_Node] = []
        for node in reversed(self._nodes):
            if node[2] in needed:
                needed.update(node[1])
                nodes.insert(0, node)
        return nodes


def _read_attributes(node: onnx.NodeProto) -> dict[str, Any]:
    values = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in values.items()}


def _reshape(inputs: list[Tensor], attributes: Attributes) -> Tensor:
    x, shape = inputs[0], inputs[1].tolist()
    return x.reshape([x.shape[axis] if length == 0 else length for axis, length in enumerate(shape)])


def _slice(inputs: list[Tensor], attributes: Attributes) -> Tensor:
    x, starts, ends = inputs[0], inputs[1].tolist(), inputs[2].tolist()
    axes = inputs[3].tolist() if len(inputs) > 3 else range(len(starts))
    steps = inputs[4].tolist() if len(inputs) > 4 else [1] * len(starts)
    index = [slice(None)] * x.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        index[axis] = slice(start, end, step)
    return x[tuple(index)]


def _gather(inputs: list[Tensor], attributes: Attributes) -> Tensor:
    x, indices = inputs
    axis = attributes.get("axis", 0) % x.ndim
    rows = torch.where(indices < 0, indices + x.shape[axis], indices)
    shape = (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])
    return x.index_select(axis, rows.reshape(-1)).reshape(shape)


def _expand(inputs: list[Tensor], attributes: Attributes) -> Tensor:
    x, shape = inputs[0], torch.Size(inputs[1].tolist())
    return x.expand(torch.broadcast_shapes(x.shape, shape))


def _layer_norm(inputs: list[Tensor], attributes: Attributes) -> Tensor:
    x, weight, bias = (*inputs, None)[:3]
    shape = x.shape[attributes.get("axis", -1) % x.ndim :]
    return F.layer_norm(x, shape, weight, bias, attributes.get("epsilon", 1e-5))


def _unsqueeze(inputs: list[Tensor], attributes: Attributes) -> Tensor:
    x, axes = inputs[0], inputs[1].tolist()
    ndim = x.ndim + len(axes)
    for axis in sorted(axis % ndim for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _squeeze(inputs: list[Tensor], attributes: Attributes) -> Tensor:
    return inputs[0].squeeze(tuple(inputs[1].tolist())) if len(inputs) > 1 else inputs[0].squeeze()


def _shape(inputs: list[Tensor], attributes: Attributes) -> Tensor:
    return torch.tensor(inputs[0].shape)[attributes.get("start", 0) : attributes.get("end")]


_TYPES: dict[int, Any] = {
    onnx.TensorProto.FLOAT: torch.float32,
    onnx.TensorProto.FLOAT16: torch.float16,
    onnx.TensorProto.INT64: torch.int64,
}

_OPERATORS: dict[str, Operator] = {
    "Add": lambda inputs, _: inputs[0] + inputs[1],
    "Cast": lambda inputs, attributes: inputs[0].to(_TYPES[attributes["to"]]),
    "Concat": lambda inputs, attributes: torch.cat(inputs, attributes["axis"]),
    "Expand": _expand,
    "Gather": _gather,
    "Gelu": lambda inputs, attributes: F.gelu(inputs[0], approximate=attributes.get("approximate", "none")),
    "LayerNormalization": _layer_norm,
    "LpNormalization": lambda inputs, attributes: F.normalize(
        inputs[0], p=attributes.get("p", 2), dim=attributes.get("axis", -1)
    ),
    "MatMul": lambda inputs, _: inputs[0] @ inputs[1],
    "Mul": lambda inputs, _: inputs[0] * inputs[1],
    "Range": lambda inputs, _: torch.arange(*(value.item() for value in inputs)),
    "Relu": lambda inputs, _: inputs[0].relu(),
    "Reshape": _reshape,
    "Shape": _shape,
    "Sigmoid": lambda inputs, _: inputs[0].sigmoid(),
    "Slice": _slice,
    "Softmax": lambda inputs, attributes: inputs[0].softmax(attributes.get("axis", -1)),
    "Squeeze": _squeeze,
    "Transpose": lambda inputs, attributes: inputs[0].permute(attributes["perm"]),
    "Unsqueeze": _unsqueeze,
}
