"""Which operators ONNX Runtime really runs for a graph, after its own optimisations."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import onnx
import onnxruntime as ort

# What a product can become that computes with integers; MatMul, FusedMatMul and MatMulNBits do not.
INTEGER = ("MatMulIntegerToFloat", "QLinearMatMul", "MatMulInteger")


def executed_operators(graph: Path) -> Counter[str]:
    """How often each operator occurs in what ONNX Runtime makes of an ONNX file on this machine."""
    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.optimized_model_filepath = str(Path(folder) / "optimised.onnx")
        ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        optimised = onnx.load(options.optimized_model_filepath)
    return Counter(node.op_type for node in optimised.graph.node)


def integer_products(graph: Path) -> int:
    """How many matrix products ONNX Runtime computes with integers; a silent return to float shows here."""
    counts = executed_operators(graph)
    return sum(counts[op] for op in INTEGER)
