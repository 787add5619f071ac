"""Operators that ONNX Runtime executes for a graph after its own optimisations."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import onnx
import onnxruntime as ort

from .convolutions import list_graphs

# Operators of products that compute with integers; MatMul, FusedMatMul and MatMulNBits do not.
INTEGER_OPERATORS = ("MatMulIntegerToFloat", "QLinearMatMul", "MatMulInteger")
CONVOLUTION = "QLinearConv"
BLOCK_OPERATOR = "MatMulNBits"


def count_executed_operators(graph: Path) -> Counter[str]:
    """Count the operators, branches included, of the graph that ONNX Runtime makes of a file here."""
    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.optimized_model_filepath = str(Path(folder) / "optimised.onnx")
        ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        optimised = onnx.load(options.optimized_model_filepath)
    return Counter(node.op_type for graph in list_graphs(optimised.graph) for node in graph.node)


def count_integer_products(graph: Path) -> int:
    """Count the matrix products that ONNX Runtime computes with integers, rather than silently in float."""
    counts = count_executed_operators(graph)
    return sum(counts[operator] for operator in INTEGER_OPERATORS)


def count_integer_convolutions(graph: Path) -> int:
    """Count the convolutions that ONNX Runtime computes with integers, in all branches of the graph."""
    return count_executed_operators(graph)[CONVOLUTION]


def count_block_products(graph: Path) -> int:
    """Count the matrix products of float activations with weights that stay in blocks of 4 bits."""
    return count_executed_operators(graph)[BLOCK_OPERATOR]
