"""ONNX graph of CLIP's image tower, whose classifier is an input (docs/bundle.md)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto

from ..engine.model import FloatArray
from ..engine.runtime.graph_contract import CLASSIFIER, IMAGES
from .onnx_builder import OnnxBuilder
from .signature import OPSET, declare_inputs, declare_outputs
from .vit_graph import list_vit_tunables, write_vit_features
from .vit_model import Vit


def list_feature_widths(tower: Vit) -> tuple[int, ...]:
    """Return the width of each feature: D for every block, and E for the image embedding."""
    return (*[tower.width] * len(tower.blocks), len(tower.head.weight))


def build_clip_graph(
    tower: Vit,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    norms: Mapping[str, int] | None = None,
    pixels: bool = False,
) -> onnx.ModelProto:
    """Build the graph of an image tower.

    Its outputs depend on one image each, to the bit, in whatever batch that image comes.

    Args:
        tower: the model; its head is the projection to the embedding.
        mean: per channel, of images scaled to 0..1, subtracted inside the graph.
        std: per channel, of images scaled to 0..1, divided by inside the graph.
        norms: the norms, from `select_vit_norms`, whose gain and bias get a tunable addend.
        pixels: whether the images get a tunable addend, too.
    """
    b = OnnxBuilder()
    norms = norms or {}
    widths = list_feature_widths(tower)
    width = max(widths)
    features = write_vit_features(b, tower, mean, std, norms, pixels)
    embedding = _write_embedding(b, features[-1], tower, width)
    _write_features(b, features, embedding, tower.width, width)
    _write_logits(b, embedding, width)
    inputs = declare_inputs(tower.image_size, list_vit_tunables(tower, norms, pixels=pixels))
    inputs[CLASSIFIER] = (TensorProto.FLOAT, ("K", width))
    return b.model(inputs, declare_outputs("K", len(widths), width, tower.width), OPSET, "fozo")


def _write_embedding(b: OnnxBuilder, feature: str, tower: Vit, width: int) -> str:
    """Write the image embedding of unit length, padded with zeros, `[N, F]`."""
    x = b.reshape(feature, (0, tower.width), "projection/input")
    # Padding the projection pads its output, and leaves the length as it is. A Gemm stays in float.
    weights = [b.weight("projection.weight", _pad(tower.head.weight, width).T)]
    if tower.head.bias is not None:
        weights.append(b.weight("projection.bias", _pad(tower.head.bias, width)))
    x = b.node("Gemm", [x, *weights], "projection")
    return b.node("LpNormalization", [x], "normalise", axis=-1, p=2)


def _pad(values: FloatArray, length: int) -> FloatArray:
    """Return an array with zeros behind its first axis."""
    return np.pad(values, [(0, length - len(values)), *[(0, 0)] * (values.ndim - 1)])


def _write_features(b: OnnxBuilder, features: list[str], embedding: str, width: int, padded: int) -> None:
    """Write all features, those of the blocks padded with zeros behind their `width` channels."""
    if padded > width:
        count = b.node("Shape", [IMAGES], "features/count", start=0, end=1)
        shape = b.node("Concat", [count, b.ints(len(features), padded - width)], "features/shape", axis=0)
        zeros = b.node("Expand", [b.weight("zero", np.zeros((1, 1, 1))), shape], "features/zeros")
        blocks = b.node("Concat", features, "features/blocks", axis=1)
        features = [b.node("Concat", [blocks, zeros], "features/padded", axis=2)]
    last = b.reshape(embedding, (0, 1, padded), "features/embedding")
    b.node("Concat", [*features, last], "features/concat", output="features", axis=1)


def _write_logits(b: OnnxBuilder, embedding: str, width: int) -> None:
    """Write a product of the classifier and each image on its own.

    Runtimes multiply one row by other rules than several, with other last bits. A column for each image is
    the same product in every batch.
    """
    columns = b.reshape(embedding, (0, width, 1), "head/columns")
    logits = b.node("MatMul", [CLASSIFIER, columns], "head")
    b.node("Reshape", [logits, b.ints(0, -1)], "head/squeeze", output="logits")
