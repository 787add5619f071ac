"""A graph with affine maps and moments at some of its activations, made when it is loaded.

Files of bundles have neither, so nothing is computed for them unless a method asks for it. The nodes are
written into the file's bytes: weights are copied as they are, and it makes no difference in which precision
the products are. The map stands in front of the quantisation of an activation.
"""

from __future__ import annotations

import io
import mmap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError
from ..model import RECENTRING, Activation
from .graph_contract import ACTIVATION_MOMENTS
from .onnx_wire import BYTES, Content, Field, encode_bytes, encode_length, encode_number, iterate_fields

# Numbers of fields in onnx.proto.
_GRAPH = 7  # of a model
_NODE, _INITIALIZER, _INPUT, _OUTPUT = 1, 5, 11, 12  # of a graph
_NODE_INPUT, _NODE_OUTPUT, _NODE_NAME, _OPERATOR, _ATTRIBUTE = 1, 2, 3, 4, 5
_FLOAT, _INT64 = 1, 7  # types of tensors
_INT = 2  # type of an attribute

FEATURES = "feature."  # names of the nodes that read features begin with this; they read what was not moved


class _Span(NamedTuple):
    """Bytes of the file that are copied."""

    start: int
    end: int


_Piece = bytes | _Span


def add_recentring(graph: Path, activations: Sequence[Activation]) -> bytes:
    """Return an ONNX model in which some activations x become `(1 + gain) x + offset`.

    It has one more input, `recentring` `[S, 2, C]`, S in {1, N}: gain (index 0) and offset (index 1) of
    every channel of the activations, one after the other. One more output, `activation_moments` `[N, 2, C]`,
    has mean and biased variance of x over the tokens of each image.

    Args:
        graph: an ONNX file that was checked and follows the graph contract.
        activations: at least one, in the order of computation.

    Raises:
        BundleError: the graph does not compute one of them.
    """
    with graph.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        outer = list(_iterate_spans(content, Field(0, BYTES, 0, len(content))))
        body = [field for field, _ in outer if field.number == _GRAPH][-1]
        pieces = list(_write_graph(content, body, activations, graph))
        length = sum(len(piece) if isinstance(piece, bytes) else piece.end - piece.start for piece in pieces)
        result = io.BytesIO()
        for field, span in outer:
            if field != body:
                result.write(content[span.start : span.end])
        result.write(encode_length(_GRAPH, length))
        for piece in pieces:
            result.write(piece if isinstance(piece, bytes) else content[piece.start : piece.end])
        return result.getvalue()


def _iterate_spans(content: Content, message: Field) -> Iterator[tuple[Field, _Span]]:
    """Yield the fields of a message, each with the bytes that number and length take, too."""
    start = message.start
    for field in iterate_fields(content, message):
        yield field, _Span(start, field.end)
        start = field.end


def _write_graph(
    content: Content, graph: Field, activations: Sequence[Activation], path: Path
) -> Iterator[_Piece]:
    """Yield the fields of the graph, with the nodes of every activation behind the one that computes it."""
    writer = _Writer(activations)
    yield from writer.begin()
    awaited = {activation.tensor: activation for activation in activations}
    moved = {tensor: _name_result(tensor) for tensor in awaited}
    for field, span in _iterate_spans(content, graph):
        if field.number != _NODE:
            yield span
            continue
        node = _read_node(content, field)
        is_feature = node.name.startswith(FEATURES)
        changed = not is_feature and not moved.keys().isdisjoint(node.inputs)
        yield _replace_inputs(content, field, moved) if changed else span
        for tensor in node.outputs:
            if tensor in awaited:
                yield from writer.write_activation(awaited.pop(tensor))
    if awaited:
        raise BundleError(
            f"{path}: expected a graph that computes the tensor {next(iter(awaited))!r}, which the manifest "
            "lists as an activation, found none; export the model again with fozo export"
        )
    yield from writer.finish()


class _Node(NamedTuple):
    name: str
    inputs: list[str]
    outputs: list[str]


def _read_node(content: Content, node: Field) -> _Node:
    texts: dict[int, list[str]] = {_NODE_NAME: [""], _NODE_INPUT: [], _NODE_OUTPUT: []}
    for field in iterate_fields(content, node):
        if field.number in texts:
            texts[field.number].append(_read_text(content, field))
    return _Node(texts[_NODE_NAME][-1], texts[_NODE_INPUT], texts[_NODE_OUTPUT])


def _read_text(content: Content, field: Field) -> str:
    return content[field.start : field.end].decode("utf-8", "replace")


def _replace_inputs(content: Content, node: Field, names: dict[str, str]) -> bytes:
    """Return a node of the graph that reads other tensors."""
    body = io.BytesIO()
    for field, span in _iterate_spans(content, node):
        name = _read_text(content, field) if field.number == _NODE_INPUT else ""
        replaced = encode_bytes(_NODE_INPUT, names[name]) if name in names else None
        body.write(content[span.start : span.end] if replaced is None else replaced)
    return encode_bytes(_NODE, body.getvalue())


def _name_result(tensor: str) -> str:
    return f"{RECENTRING}/{tensor}"


class _Writer:
    """Writer of the additional nodes, constants, input and output of a graph."""

    def __init__(self, activations: Sequence[Activation]) -> None:
        self._activations = activations
        self._constants: dict[str, NDArray[Any]] = {}
        self._channels = sum(activation.width for activation in activations)

    def begin(self) -> Iterator[bytes]:
        """Yield the nodes that give every activation its gain and offset, `[S, 2, width]`."""
        identity = self._store("identity", np.asarray([[[1], [0]]], np.float32))
        yield _encode_node("Add", [RECENTRING, identity], [f"{RECENTRING}/total"])
        widths = self._store_ints(*(activation.width for activation in self._activations))
        values = [_name_result(activation.tensor) + "/values" for activation in self._activations]
        yield _encode_node("Split", [f"{RECENTRING}/total", widths], values, axis=2)

    def write_activation(self, activation: Activation) -> Iterator[bytes]:
        """Yield the affine map of an activation, and its moments before that."""
        x, result = activation.tensor, _name_result(activation.tensor)
        values = [f"{result}/gain", f"{result}/offset"]
        yield _encode_node("Split", [f"{result}/values"], values, axis=1, num_outputs=2)
        if activation.heads:
            shape = self._store_ints(0, activation.heads, 1, activation.width // activation.heads)
            for name in values:
                yield _encode_node("Reshape", [name, shape], [f"{name}/heads"])
            values = [f"{name}/heads" for name in values]
        yield _encode_node("Mul", [x, values[0]], [f"{result}/scaled"])
        yield _encode_node("Add", [f"{result}/scaled", values[1]], [result])
        yield from self._write_moments(activation, result)

    def _write_moments(self, activation: Activation, name: str) -> Iterator[bytes]:
        """Yield the nodes of mean and biased variance over the tokens of each image, `[N, 1, width]` each."""
        x, axis = activation.tensor, 2 if activation.heads else 1
        yield _encode_node("Shape", [x], [f"{name}/tokens"], start=axis, end=axis + 1)
        yield _encode_node("Cast", [f"{name}/tokens"], [f"{name}/count"], to=_FLOAT)
        yield _encode_node("Reciprocal", [f"{name}/count"], [f"{name}/share"])
        one = self._store_ints(1)
        yield _encode_node("Concat", [one, f"{name}/tokens"], [f"{name}/shape"], axis=0)
        yield _encode_node("Expand", [f"{name}/share", f"{name}/shape"], [f"{name}/weights"])
        # Products and not ReduceMean, whose last bits depend on the number of images.
        yield _encode_node("MatMul", [f"{name}/weights", x], [f"{name}/mean"])
        yield _encode_node("Sub", [x, f"{name}/mean"], [f"{name}/deviation"])
        yield _encode_node("Mul", [f"{name}/deviation"] * 2, [f"{name}/square"])
        yield _encode_node("MatMul", [f"{name}/weights", f"{name}/square"], [f"{name}/variance"])
        if activation.heads:
            shape = self._store_ints(0, 1, activation.width)
            for moment in ("mean", "variance"):
                yield _encode_node("Reshape", [f"{name}/{moment}", shape], [f"{name}/{moment}/flat"])

    def finish(self) -> Iterator[bytes]:
        """Yield the nodes that join the moments, all constants, the input and the output."""
        for moment in ("mean", "variance"):
            names = [
                f"{_name_result(activation.tensor)}/{moment}" + ("/flat" if activation.heads else "")
                for activation in self._activations
            ]
            yield _encode_node("Concat", names, [f"{RECENTRING}/{moment}s"], axis=2)
        means = [f"{RECENTRING}/means", f"{RECENTRING}/variances"]
        yield _encode_node("Concat", means, [ACTIVATION_MOMENTS], axis=1)
        for name, values in self._constants.items():
            yield encode_bytes(_INITIALIZER, _encode_tensor(name, values))
        yield encode_bytes(_INPUT, _encode_value(RECENTRING, "recentring_rows", 2, self._channels))
        yield encode_bytes(_OUTPUT, _encode_value(ACTIVATION_MOMENTS, "N", 2, self._channels))

    def _store_ints(self, *values: int) -> str:
        return self._store("_".join(map(str, ("ints", *values))), np.asarray(values, np.int64))

    def _store(self, name: str, values: NDArray[Any]) -> str:
        name = f"{RECENTRING}.{name}"
        self._constants[name] = values
        return name


def _encode_node(operator: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: int) -> bytes:
    """Return a node, a field of the graph, that is named after its first output."""
    body = b"".join(encode_bytes(_NODE_INPUT, name) for name in inputs)
    body += b"".join(encode_bytes(_NODE_OUTPUT, name) for name in outputs)
    body += encode_bytes(_NODE_NAME, outputs[0]) + encode_bytes(_OPERATOR, operator)
    for name, value in attributes.items():
        attribute = encode_bytes(1, name) + encode_number(3, value) + encode_number(20, _INT)
        body += encode_bytes(_ATTRIBUTE, attribute)
    return encode_bytes(_NODE, body)


def _encode_tensor(name: str, values: NDArray[Any]) -> bytes:
    """Return a constant, float32 or int64."""
    kind = _FLOAT if values.dtype == np.float32 else _INT64
    body = b"".join(encode_number(1, axis) for axis in values.shape) + encode_number(2, kind)
    little_endian = values.astype(values.dtype.newbyteorder("<"))
    return body + encode_bytes(8, name) + encode_bytes(9, little_endian.tobytes())


def _encode_value(name: str, rows: str, *axes: int) -> bytes:
    """Return the description of a float32 input or output, whose first axis is dynamic."""
    dimensions = [encode_bytes(2, rows), *(encode_number(1, axis) for axis in axes)]
    shape = b"".join(encode_bytes(1, dimension) for dimension in dimensions)
    tensor = encode_number(1, _FLOAT) + encode_bytes(2, shape)
    return encode_bytes(1, name) + encode_bytes(2, encode_bytes(1, tensor))
