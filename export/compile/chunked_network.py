"""A network in a larger graph that goes through its rows a few at a time, so that memory stays small."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from .tensor import ExpressionGraph, Tensor, concatenate, minimum

ROWS = 8  # in a call of the network; more take memory, fewer leave the processor's units unused


@dataclass(frozen=True)
class Feed:
    """Values for an input of the network.

    Attributes:
        values: the first axis is 1, or counts rows.
        repeats: a row takes the entry of its number modulo the count, as images of several candidates do.
            Otherwise all rows share the values.
    """

    values: Tensor
    repeats: bool


def append_network(
    graph: ExpressionGraph,
    network: onnx.GraphProto,
    prefix: str,
    feeds: Mapping[str, Feed],
    rows: Tensor,
    results: Mapping[str, int],
) -> dict[str, Tensor]:
    """Append a loop over a network, and return its results by name, float32, the first axis counts rows.

    Chunks have one length, at most `ROWS`, so that the last ones overlap in the last row if it does not
    divide them; what is computed twice is cut off.

    Args:
        graph: to append to.
        network: nodes without initializers, whose names begin with `prefix`; the images of a call must not
            depend on each other.
        prefix: before the names.
        feeds: one for each input, by name without the prefix.
        rows: their number, an int64 scalar.
        results: outputs of the network that are wanted and their numbers of axes, by name without the prefix.
    """
    one = graph.constant(1, np.int64)
    rows = graph.apply("Identity", [rows])  # of this graph, which may be a branch, as all that is made of it
    trips = divide_up(rows, graph.constant(ROWS, np.int64))
    chunk = divide_up(rows, trips)
    body = ExpressionGraph(f"{prefix}chunk/")
    number = Tensor(body, f"{prefix}chunk/number", np.dtype(np.int64))
    last = body.apply("Sub", [rows, one])
    steps = body.apply("Range", [graph.constant(0, np.int64), chunk, one])
    positions = minimum(body.apply("Add", [body.apply("Mul", [number, chunk]), steps]), last)
    for name, feed in feeds.items():
        body.rename(_choose_rows(body, feed, positions), f"{prefix}{name}")
    body.nodes.extend(network.node)
    outputs = _append_loop(graph, body, number, trips, [f"{prefix}{name}" for name in results])
    stop = rows.reshape(1)
    return {
        name: _join_chunks(output, stop, axes)
        for (name, axes), output in zip(results.items(), outputs, strict=True)
    }


def divide_up(total: Tensor, divisor: Tensor) -> Tensor:
    """Return a quotient of positive integers, rounded up."""
    return (total + (divisor - 1)) / divisor


def _choose_rows(body: ExpressionGraph, feed: Feed, positions: Tensor) -> Tensor:
    """Return the values of some rows."""
    if not feed.repeats:
        return Tensor(body, feed.values.name, feed.values.dtype)
    count = body.apply("Shape", [feed.values], np.int64, start=0, end=1)
    wrapped = body.apply("Mod", [positions, count])
    return body.apply("Gather", [feed.values, wrapped], feed.values.dtype, axis=0)


def _append_loop(
    graph: ExpressionGraph, body: ExpressionGraph, number: Tensor, trips: Tensor, names: list[str]
) -> list[Tensor]:
    """Append a loop that stacks outputs of its body, float32, along a new first axis."""
    goes_on = f"{body.prefix}goes_on"
    body.nodes.append(helper.make_node("Identity", [goes_on], [f"{goes_on}/next"], name=f"{goes_on}/next"))
    boolean, float32 = onnx.TensorProto.BOOL, onnx.TensorProto.FLOAT
    inputs = [
        helper.make_tensor_value_info(number.name, onnx.TensorProto.INT64, []),
        helper.make_tensor_value_info(goes_on, boolean, []),
    ]
    outputs = [helper.make_tensor_value_info(f"{goes_on}/next", boolean, [])]
    outputs += [helper.make_tensor_value_info(name, float32, None) for name in names]
    loop = f"{body.prefix}loop"
    stacked = [f"{name}/chunks" for name in names]
    proto = helper.make_graph(body.nodes, loop, inputs, outputs)
    graph.nodes.append(helper.make_node("Loop", [trips.name, ""], stacked, name=loop, body=proto))
    return [Tensor(graph, name, np.dtype(np.float32)) for name in stacked]


def _join_chunks(stacked: Tensor, stop: Tensor, axes: int) -> Tensor:
    """Return rows `[R, …]` of chunks `[T, C, …]` that hold at least as many."""
    lengths = concatenate([stacked.graph.constant([-1], np.int64), stacked.shape(2, 1 + axes)])
    return stacked.graph.apply("Reshape", [stacked, lengths]).slice(0, stop)
