"""Operators that ONNX Runtime executes for a graph after its own optimisations."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import onnx
import onnxruntime as ort

# Operators of products that compute with integers; MatMul, FusedMatMul and MatMulNBits do not.
INTEGER_OPERATORS = ("MatMulIntegerToFloat", "QLinearMatMul", "MatMulInteger")
BLOCK_OPERATOR = "MatMulNBits"


def count_executed_operators(graph: Path) -> Counter[str]:
    """Count the operators of the graph that ONNX Runtime makes of an ONNX file on this machine."""
    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.optimized_model_filepath = str(Path(folder) / "optimised.onnx")
        ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        optimised = onnx.load(options.optimized_model_filepath)
    return Counter(node.op_type for node in optimised.graph.node)


def count_integer_products(graph: Path) -> int:
    """Count the matrix products that ONNX Runtime computes with integers, rather than silently in float."""
    counts = count_executed_operators(graph)
    return sum(counts[operator] for operator in INTEGER_OPERATORS)


def count_block_products(graph: Path) -> int:
    """Count the matrix products of float activations with weights that stay in blocks of 4 bits."""
    return count_executed_operators(graph)[BLOCK_OPERATOR]
