"""Arithmetic that is written down as nodes of an ONNX graph instead of being computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike
from onnx import helper, numpy_helper

Number = int | float | bool


class ExpressionGraph:
    """A graph that grows with every expression.

    Attributes:
        nodes: in the order of the computation.
        initializers: constants by name; empty in a branch.
        prefix: of the names of nodes; that of a branch, which has its constants as nodes.
    """

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}
        self._constants: dict[tuple[str, tuple[int, ...], bytes], Tensor] = {}

    def constant(self, values: ArrayLike, dtype: np.dtype[Any] | type) -> Tensor:
        """Return a constant; equal ones are stored once."""
        array = np.ascontiguousarray(np.asarray(values, dtype))
        array = array.reshape(np.shape(values))  # a scalar stays one
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            name = f"{self.prefix}constant.{len(self._constants)}"
            tensor = numpy_helper.from_array(array, name)
            if self.prefix:
                self.nodes.append(helper.make_node("Constant", [], [name], name=name, value=tensor))
            else:
                self.initializers[name] = tensor
            self._constants[key] = Tensor(self, name, array.dtype)
        return self._constants[key]

    def apply(
        self, op: str, inputs: Sequence[Tensor], dtype: np.dtype[Any] | type | None = None, **attributes: Any
    ) -> Tensor:
        """Append a node, and return its result, which has the type of the first input unless told."""
        name = f"{self.prefix}{op}.{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(op, [tensor.name for tensor in inputs], [name], name=name, **attributes)
        )
        return Tensor(self, name, np.dtype(dtype) if dtype is not None else inputs[0].dtype)

    def choose(
        self,
        condition: Tensor,
        first: tuple[ExpressionGraph, Tensor],
        second: tuple[ExpressionGraph, Tensor],
    ) -> Tensor:
        """Append a choice between two graphs, which may read every value of this one.

        Args:
            condition: a boolean scalar.
            first: a graph with a prefix, and its result, where the condition holds.
            second: the other.
        """
        branches = [
            helper.make_graph(
                branch.nodes,
                f"branch.{number}",
                [],
                [
                    helper.make_tensor_value_info(
                        result.name, helper.np_dtype_to_tensor_dtype(result.dtype), None
                    )
                ],
            )
            for number, (branch, result) in enumerate((first, second))
        ]
        return self.apply("If", [condition], first[1].dtype, then_branch=branches[0], else_branch=branches[1])

    def rename(self, tensor: Tensor, name: str) -> Tensor:
        """Return the tensor under a name, as an output of the graph needs it."""
        self.nodes.append(helper.make_node("Identity", [tensor.name], [name], name=f"{name}/output"))
        return Tensor(self, name, tensor.dtype)


@dataclass(frozen=True, eq=False)
class Tensor:
    """A value of a graph.

    Python's operators append nodes; both sides have one element type, and a number takes that of the other.

    Attributes:
        graph: it belongs to.
        name: in the graph.
        dtype: of its elements.
    """

    graph: ExpressionGraph
    name: str
    dtype: np.dtype[Any]

    def _binary(self, op: str, other: Tensor | Number, *, swap: bool = False, dtype: Any = None) -> Tensor:
        right = other if isinstance(other, Tensor) else self.graph.constant(other, self.dtype)
        if right.dtype != self.dtype:
            raise TypeError(f"{op} of {self.dtype} and {right.dtype}; cast one of them")
        return self.graph.apply(op, [right, self] if swap else [self, right], dtype)

    def __add__(self, other: Tensor | Number) -> Tensor:
        return self._binary("Add", other)

    def __radd__(self, other: Number) -> Tensor:
        return self._binary("Add", other, swap=True)

    def __sub__(self, other: Tensor | Number) -> Tensor:
        return self._binary("Sub", other)

    def __rsub__(self, other: Number) -> Tensor:
        return self._binary("Sub", other, swap=True)

    def __mul__(self, other: Tensor | Number) -> Tensor:
        return self._binary("Mul", other)

    def __rmul__(self, other: Number) -> Tensor:
        return self._binary("Mul", other, swap=True)

    def __truediv__(self, other: Tensor | Number) -> Tensor:
        return self._binary("Div", other)

    def __rshift__(self, bits: int) -> Tensor:
        """Divide integers, none of them negative; graphs shift only unsigned ones, which they cannot add."""
        return self._binary("Div", 1 << bits)

    def __lshift__(self, bits: int) -> Tensor:
        return self._binary("Mul", 1 << bits)

    def __rtruediv__(self, other: Number) -> Tensor:
        return self._binary("Div", other, swap=True)

    def __and__(self, other: Tensor | Number) -> Tensor:
        return self._binary("And" if self.dtype == np.bool_ else "BitwiseAnd", other)

    def __xor__(self, other: Tensor | Number) -> Tensor:
        return self._binary("BitwiseXor", other)

    def __gt__(self, other: Tensor | Number) -> Tensor:
        return self._binary("Greater", other, dtype=np.bool_)

    def __ge__(self, other: Tensor | Number) -> Tensor:
        return self._binary("GreaterOrEqual", other, dtype=np.bool_)

    def __lt__(self, other: Tensor | Number) -> Tensor:
        return self._binary("Less", other, dtype=np.bool_)

    def __le__(self, other: Tensor | Number) -> Tensor:
        return self._binary("LessOrEqual", other, dtype=np.bool_)

    def equals(self, other: Tensor | Number) -> Tensor:
        """Return whether entries are equal."""
        return self._binary("Equal", other, dtype=np.bool_)

    def __neg__(self) -> Tensor:
        return self.graph.apply("Neg", [self])

    def cast(self, dtype: Any) -> Tensor:
        """Return the values in another element type."""
        dtype = np.dtype(dtype)
        if dtype == self.dtype:
            return self
        return self.graph.apply("Cast", [self], dtype, to=helper.np_dtype_to_tensor_dtype(dtype))

    def sqrt(self) -> Tensor:
        """Return the square roots."""
        return self.graph.apply("Sqrt", [self])

    def exp(self) -> Tensor:
        """Return e to the power of the values."""
        return self.graph.apply("Exp", [self])

    def log(self) -> Tensor:
        """Return the natural logarithms."""
        return self.graph.apply("Log", [self])

    def sum(self, *axes: int, keep: bool = False) -> Tensor:
        """Return sums over some axes, over all without any."""
        return self._reduce("ReduceSum", axes, keep)

    def mean(self, *axes: int, keep: bool = False) -> Tensor:
        """Return means over some axes, over all without any."""
        return self._reduce("ReduceMean", axes, keep)

    def max(self, *axes: int, keep: bool = False) -> Tensor:
        """Return the largest values over some axes, over all without any."""
        return self._reduce("ReduceMax", axes, keep)

    def _reduce(self, op: str, axes: tuple[int, ...], keep: bool) -> Tensor:
        inputs = [self, self.graph.constant(axes, np.int64)] if axes else [self]
        return self.graph.apply(op, inputs, keepdims=int(keep))

    def reshape(self, *shape: int) -> Tensor:
        """Return the values in another shape; 0 keeps the length of an axis, −1 infers it."""
        return self.graph.apply("Reshape", [self, self.graph.constant(shape, np.int64)])

    def expand(self, shape: Tensor) -> Tensor:
        """Return the values repeated along axes of length 1 up to a shape `[axes]`, int64."""
        return self.graph.apply("Expand", [self, shape])

    def slice(self, start: int | Tensor, stop: int | Tensor, axis: int = 0) -> Tensor:
        """Return the entries from `start` to before `stop` on an axis; bounds are numbers or int64 `[1]`."""
        bounds = [
            bound if isinstance(bound, Tensor) else self.graph.constant([bound], np.int64)
            for bound in (start, stop)
        ]
        return self.graph.apply("Slice", [self, *bounds, self.graph.constant([axis], np.int64)])

    def take(self, index: int, axis: int = 0) -> Tensor:
        """Return one entry along an axis, which disappears; negative numbers count from the end."""
        return self.graph.apply("Gather", [self, self.graph.constant(index, np.int64)], axis=axis)

    def matmul(self, other: Tensor) -> Tensor:
        """Return the product of matrices."""
        return self.graph.apply("MatMul", [self, other])

    def transpose(self, *axes: int) -> Tensor:
        """Return the values with axes in another order."""
        return self.graph.apply("Transpose", [self], perm=list(axes))

    def shape(self, start: int, stop: int) -> Tensor:
        """Return the lengths of the axes from `start` to before `stop`, int64 `[stop − start]`."""
        return self.graph.apply("Shape", [self], np.int64, start=start, end=stop)


def concatenate(tensors: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Return tensors one behind the other along an axis."""
    first = tensors[0]
    return first if len(tensors) == 1 else first.graph.apply("Concat", tensors, axis=axis)


def where(condition: Tensor, value: Tensor, other: Tensor | Number) -> Tensor:
    """Return `value` where the condition holds, and `other` elsewhere."""
    graph = value.graph
    right = other if isinstance(other, Tensor) else graph.constant(other, value.dtype)
    return graph.apply("Where", [condition, value, right], value.dtype)


def minimum(value: Tensor, other: Tensor | Number) -> Tensor:
    """Return the smaller of two, entry by entry."""
    return where(value < other, value, other)


def maximum(value: Tensor, other: Tensor | Number) -> Tensor:
    """Return the larger of two, entry by entry; of a number that is none, that."""
    return where(value < other, fill_like(value, other), value)


def fill_like(value: Tensor, other: Tensor | Number) -> Tensor:
    """Return a number as a tensor of another's element type."""
    return other if isinstance(other, Tensor) else value.graph.constant(other, value.dtype)


def average(tensors: list[Tensor]) -> Tensor:
    """Return the mean of tensors of one shape."""
    total = tensors[0]
    for tensor in tensors[1:]:
        total = total + tensor
    return total if len(tensors) == 1 else total / float(len(tensors))


def einsum(equation: str, *tensors: Tensor) -> Tensor:
    """Return sums of products in Einstein's notation."""
    return tensors[0].graph.apply("Einsum", tensors, equation=equation)
