"""Names of a graph's values, changed in the graphs inside of it, too."""

from __future__ import annotations

from collections.abc import Callable

import onnx


def copy_with_prefix(model: onnx.ModelProto, prefix: str) -> onnx.ModelProto:
    """Return a copy of a model in which a prefix stands before every name of a value or a node."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    rename_values(copy.graph, lambda name: f"{prefix}{name}" if name else name)
    return copy


def rename_values(graph: onnx.GraphProto, rename: Callable[[str], str]) -> None:
    """Change all names in a graph and in the graphs inside of it, in place.

    Args:
        graph: the graph.
        rename: returns the new name; an input that is left out has an empty name.
    """
    for values in (graph.input, graph.output, graph.value_info, graph.initializer):
        for value in values:
            value.name = rename(value.name)
    for node in graph.node:
        node.name = rename(node.name)
        node.input[:] = [rename(name) for name in node.input]
        node.output[:] = [rename(name) for name in node.output]
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                rename_values(attribute.g, rename)
