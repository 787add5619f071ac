"""Storage of weights in half the bytes, where nothing is lost by it."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def store_as_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a graph whose matrices are stored as float16 where all of their values are such numbers.

    A `Cast` gives each its name and its type back. Runtimes compute that once, when they load the graph, and
    every value is the same number. OpenAI's weights were released in half precision; others are left alone.
    """
    stored, casts = [], []
    for tensor in model.graph.initializer:
        half = _convert(tensor)
        stored.append(tensor if half is None else half)
        if half is not None:
            name = f"{tensor.name}/cast"
            casts.append(
                helper.make_node("Cast", [half.name], [tensor.name], name=name, to=TensorProto.FLOAT)
            )
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.initializer[:], result.graph.node[:]
    result.graph.initializer.extend(stored)
    result.graph.node.extend([*casts, *model.graph.node])
    return result


def _convert(tensor: onnx.TensorProto) -> onnx.TensorProto | None:
    """Return a matrix as float16, or None if it is none or a value would change."""
    if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) < 2:
        return None
    values = numpy_helper.to_array(tensor)
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    if not np.array_equal(half.astype(np.float32), values):
        return None
    return numpy_helper.from_array(half, f"{tensor.name}/half")
