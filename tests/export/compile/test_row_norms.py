"""Layer norms with a gain and a bias for each row, against NumPy."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from fozo.export.compile.row_norms import separate_gains
from fozo.export.compile.tensor import ExpressionGraph
from onnx import helper

WIDTH, EPSILON = 6, 1e-6
FLOAT = onnx.TensorProto.FLOAT


def build_model() -> tuple[onnx.ModelProto, list[str]]:
    """Return a tunable norm and a fixed one behind it, and the operators after the replacement."""
    nodes = [
        helper.make_node("Split", ["norms"], ["gain", "bias"], "split", axis=1, num_outputs=2),
        helper.make_node("LayerNormalization", ["x", "gain", "bias"], ["first"], "first", epsilon=EPSILON),
        helper.make_node("LayerNormalization", ["first", "two", "zero"], ["y"], "last", epsilon=EPSILON),
    ]
    network = helper.make_graph(nodes, "network", [], [])
    graph = ExpressionGraph()
    separate_gains(graph, network, WIDTH)
    weights = [
        onnx.numpy_helper.from_array(np.full(WIDTH, value, np.float32), name)
        for name, value in (("two", 2.0), ("zero", 0.0))
    ]
    inputs = [
        helper.make_tensor_value_info("x", FLOAT, ["N", "T", WIDTH]),
        helper.make_tensor_value_info("norms", FLOAT, ["N", 2, WIDTH]),
    ]
    outputs = [helper.make_tensor_value_info(name, FLOAT, ["N", "T", WIDTH]) for name in ("first", "y")]
    constants = [*weights, *graph.initializers.values()]
    proto = helper.make_graph(list(network.node), "test", inputs, outputs, constants)
    model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", 20)])
    model.ir_version = helper.find_min_ir_version_for(model.opset_import)
    onnx.checker.check_model(model)
    return model, [node.op_type for node in network.node]


def normalize(x: np.ndarray) -> np.ndarray:
    """Return rows with mean 0 and variance 1."""
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + EPSILON)


def test_norms_of_rows_are_those_of_numpy() -> None:
    rng = np.random.default_rng(0)
    x, norms = rng.normal(2, 3, (3, 5, WIDTH)), rng.normal(1, 1, (3, 2, WIDTH))
    model, _ = build_model()
    session = onnxruntime.InferenceSession(model.SerializeToString())
    first, last = session.run(None, {"x": x.astype(np.float32), "norms": norms.astype(np.float32)})
    expected = normalize(x) * norms[:, :1] + norms[:, 1:]
    np.testing.assert_allclose(first, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(last, normalize(expected) * 2, rtol=1e-4, atol=1e-4)


def test_norms_that_are_not_tunable_stay() -> None:
    _, operators = build_model()
    assert operators == ["Split", "LayerNormalization", "Mul", "Add", "LayerNormalization"]
