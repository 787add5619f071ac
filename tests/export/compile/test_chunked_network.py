"""The loop that goes through the rows of a network a few at a time."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from fozo.export.compile.chunked_network import ROWS, Feed, append_network
from fozo.export.compile.tensor import ExpressionGraph, Tensor
from onnx import helper

FLOAT = onnx.TensorProto.FLOAT
MODEL = "model/"  # before the names of the small network


def build_session(candidates: int) -> onnxruntime.InferenceSession:
    """Return a graph that runs x · weight + addend over N images and as many addends as candidates.

    Its second output is the number of rows in the call that computed each row.
    """
    nodes = [
        helper.make_node("Mul", [f"{MODEL}images", f"{MODEL}weight"], [f"{MODEL}scaled"]),
        helper.make_node("Add", [f"{MODEL}scaled", f"{MODEL}addends"], [f"{MODEL}sum"]),
        helper.make_node("Shape", [f"{MODEL}sum"], [f"{MODEL}rows"], end=1),
        helper.make_node("Cast", [f"{MODEL}rows"], [f"{MODEL}length"], to=FLOAT),
        helper.make_node("Mul", [f"{MODEL}sum", f"{MODEL}zero"], [f"{MODEL}zeros"]),
        helper.make_node("Add", [f"{MODEL}zeros", f"{MODEL}length"], [f"{MODEL}lengths"]),
    ]
    network = helper.make_graph(nodes, "network", [], [])
    graph = ExpressionGraph()
    for name, value in (("weight", 2.0), ("zero", 0.0)):
        graph.initializers[name] = onnx.numpy_helper.from_array(np.float32([value]), f"{MODEL}{name}")
    images = Tensor(graph, "images", np.dtype(np.float32))
    addends = Tensor(graph, "addends", np.dtype(np.float32))
    rows = (images.shape(0, 1) * candidates).reshape()
    feeds = {"images": Feed(images, repeats=True), "addends": Feed(addends, repeats=True)}
    results = append_network(graph, network, MODEL, feeds, rows, {"sum": 2, "lengths": 2})
    outputs = [graph.rename(results["sum"], "sum"), graph.rename(results["lengths"], "lengths")]
    inputs = [helper.make_tensor_value_info(name, FLOAT, [None, 3]) for name in ("images", "addends")]
    infos = [helper.make_tensor_value_info(value.name, FLOAT, [None, 3]) for value in outputs]
    proto = helper.make_graph(graph.nodes, "test", inputs, infos, list(graph.initializers.values()))
    opsets = [helper.make_opsetid("", 20)]
    model = helper.make_model(proto, opset_imports=opsets)
    model.ir_version = helper.find_min_ir_version_for(opsets)
    onnx.checker.check_model(model)
    return onnxruntime.InferenceSession(model.SerializeToString())


@pytest.mark.parametrize("candidates", [1, 2, 3])
def test_rows_are_those_of_one_call(candidates: int) -> None:
    session = build_session(candidates)
    for count in range(1, 3 * ROWS):
        rng = np.random.default_rng(count)
        images = rng.standard_normal((count, 3), np.float32)
        addends = rng.standard_normal((candidates * count, 3), np.float32)
        total, lengths = session.run(None, {"images": images, "addends": addends})
        np.testing.assert_array_equal(total, 2 * np.tile(images, (candidates, 1)) + addends)
        assert len(lengths) == len(total) and lengths.max() <= ROWS


def test_chunks_are_of_one_length_and_as_few_as_possible() -> None:
    session = build_session(1)
    for count, length in ((1, 1), (ROWS, ROWS), (ROWS + 1, ROWS // 2 + 1), (2 * ROWS, ROWS)):
        rows = np.zeros((count, 3), np.float32)
        _, lengths = session.run(None, {"images": rows, "addends": rows})
        assert set(lengths.ravel()) == {length}
