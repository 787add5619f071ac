"""Bits of the integer weights of a step, and a warning where its products may overflow."""

from __future__ import annotations

import warnings

import numpy as np
import onnx
from onnx import numpy_helper

from ...engine.runtime.cpu import read_cpu_features

SAFE_BITS = 7  # no kernel overflows with these


def find_weight_bits(model: onnx.ModelProto) -> int | None:
    """Return the bits of the largest integer weight, with its sign; None where all weights are in float.

    Args:
        model: a graph with its weights outside of its branches and loops.
    """
    weights = (
        numpy_helper.to_array(tensor).astype(np.int16)
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) > 1
    )
    largest = max((int(np.abs(weight).max()) for weight in weights if weight.size), default=0)
    return min(largest.bit_length() + 1, 8) if largest else None


def warn_of_overflow(bits: int | None, precision: str) -> None:
    """Warn if the integer kernels of this processor may overflow in a step whose weights have these bits."""
    if bits is not None and bits > SAFE_BITS and read_cpu_features().full_int8 is not True:
        warnings.warn(
            f"the weights of {precision} have {bits} bits, with which this processor's integer kernels may "
            "overflow inside of a step; for such processors quantise with fozo quantize --weight-bits 7",
            stacklevel=3,
        )
