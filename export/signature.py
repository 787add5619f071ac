"""Inputs and outputs of exported graphs, as the graph contract (docs/bundle.md) asks for them."""

from __future__ import annotations

from collections.abc import Mapping

from onnx import TensorProto

from ..engine.runtime.graph_contract import IMAGES, OUTPUTS
from .onnx_builder import Axes, Values

OPSET = 20  # version of the standard ONNX operators


def declare_inputs(image_size: tuple[int, int], tunables: Mapping[str, Axes]) -> Values:
    """Return the inputs of a graph: images, then the tunables in order.

    Args:
        image_size: height and width in pixels.
        tunables: axes by name of the input; a string is the name of a dynamic axis.
    """
    inputs: Values = {IMAGES: (TensorProto.UINT8, ("N", *image_size, 3))}
    return {**inputs, **{name: (TensorProto.FLOAT, axes) for name, axes in tunables.items()}}


def declare_outputs(classes: int | str, layers: int, feature_width: int, embedding_width: int) -> Values:
    """Return the outputs of a graph: logits, features, and moments of the embedding.

    Args:
        classes: K, or its name where the classes are an input.
        layers: L.
        feature_width: F.
        embedding_width: channels of the embedding.
    """
    axes: tuple[Axes, ...] = (("N", classes), ("N", layers, feature_width), ("N", 2, embedding_width))
    return {name: (TensorProto.FLOAT, lengths) for name, lengths in zip(OUTPUTS, axes, strict=True)}
