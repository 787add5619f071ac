"""A copy of a graph that the onnx package edits: its activations are read, and moved by further inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.model import Activation, ImageArray
from numpy.typing import NDArray
from onnx import TensorProto, helper

Array = NDArray[Any]


class EditedGraph:
    """A graph of a bundle in which some activations x become `slope · x + intercept`."""

    def __init__(self, bundle: Bundle, precision: str, activations: Sequence[Activation]) -> None:
        self.activations = activations
        manifest = bundle.manifest
        self.feed = {
            "prompts": np.zeros((1, 0, manifest.width), np.float32),
            "norms": np.zeros((1, len(manifest.norms), 2, manifest.width), np.float32),
        }
        model = onnx.load(bundle.graph(precision))
        for activation in activations:
            insert_map(model.graph, activation)
        content = model.SerializeToString()
        self.session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])

    def run(self, images: ImageArray, maps: Mapping[str, tuple[Array, Array]]) -> dict[str, Array]:
        """Return logits, features, and by name of the tensor every activation before its map, `[N, T, C]`.

        Args:
            images: uint8 `[N, H, W, 3]`.
            maps: slope and intercept `[C]` by name of the tensor; without any, it stays as it is.
        """
        feed: dict[str, Array] = {"images": images, **self.feed}
        for item in self.activations:
            unmoved = np.ones(item.width), np.zeros(item.width)
            for name, values in zip(name_inputs(item), maps.get(item.tensor, unmoved), strict=True):
                feed[name] = values.astype(np.float32).reshape(get_map_shape(item))
        names = ["logits", "features", *(item.tensor for item in self.activations)]
        outputs = dict(zip(names, self.session.run(names, feed), strict=True))
        for item in self.activations:
            x = outputs[item.tensor].astype(np.float64)
            if item.heads:
                x = x.transpose(0, 2, 1, 3).reshape(len(x), x.shape[2], -1)
            outputs[item.tensor] = x
        return outputs


def name_inputs(activation: Activation) -> tuple[str, str]:
    return f"test/{activation.tensor}/slope", f"test/{activation.tensor}/intercept"


def get_map_shape(activation: Activation) -> list[int]:
    """Return a shape of slope and intercept that fits `[N, T, width]`, or `[N, heads, T, width / heads]`."""
    heads, width = activation.heads, activation.width
    return [heads, 1, width // heads] if heads else [1, width]


def insert_map(graph: Any, activation: Activation) -> None:
    """Let all nodes but those of features read an activation behind its map, and make it an output."""
    x, moved = activation.tensor, f"test/{activation.tensor}"
    for node in graph.node:
        if not node.name.startswith("feature."):
            node.input[:] = [moved if name == x else name for name in node.input]
    for name in name_inputs(activation):
        shape = get_map_shape(activation)
        graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    slope, intercept = name_inputs(activation)
    position = 1 + next(index for index, node in enumerate(graph.node) if x in node.output)
    graph.node.insert(position, helper.make_node("Mul", [x, slope], [f"{moved}/scaled"]))
    graph.node.insert(position + 1, helper.make_node("Add", [f"{moved}/scaled", intercept], [moved]))
    graph.output.append(helper.make_tensor_value_info(x, TensorProto.FLOAT, None))
