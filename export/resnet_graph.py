"""ONNX graph of a residual network, following the graph contract (docs/bundle.md).

Adaptation changes the batch norms: it mixes their running statistics with those of the batch, and adds to
their gain and bias. The unadapted network should not be slower for it, so the stages exist twice, in the two
branches of an `If`: convolutions with plain BatchNormalization, which every runtime folds into the
convolution, and the general computation. Both read the same weights.

The stem exists once. The embedding is computed from the output of its last convolution, and this batch norm's
statistics from the embedding. Where its gain is negative, the convolution is negated instead. Norm and ReLU
are then increasing functions and can follow the maximum pooling, on a quarter of the values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from ..engine.model import BATCH_STATISTICS, NORMS, FloatArray
from ..engine.runtime.graph_contract import IMAGES
from .image_format import ImageFormat
from .onnx_builder import Axes, OnnxBuilder
from .resnet_model import BatchNorm, Block, Layer, Resnet, Window
from .signature import OPSET, declare_inputs, declare_outputs


def select_resnet_norms(resnet: Resnet, blocks: Iterable[int] | None = None) -> dict[str, int]:
    """Return the norms that ZOA tunes, `bn1` and `bn2` of some blocks, each with its number of channels.

    Args:
        resnet: the model.
        blocks: counted from 0 over all stages; None selects all of them.
    """
    indices = range(len(resnet.blocks)) if blocks is None else sorted(set(blocks))
    norms = [layer.norm for index in indices for layer in resnet.blocks[index].layers[:2]]
    return {norm.name: norm.channels for norm in norms}


def list_resnet_tunables(norms: Mapping[str, int]) -> dict[str, Axes]:
    """Return the axes of each tunable input, by name, if these norms are tunable."""
    addends: dict[str, Axes] = {NORMS: (1, len(norms), 2, max(norms.values()))} if norms else {}
    return {**addends, BATCH_STATISTICS: (1,)}


def build_resnet_graph(
    resnet: Resnet, image_format: ImageFormat, norms: Mapping[str, int] | None = None
) -> onnx.ModelProto:
    """Build the graph of a model.

    Args:
        resnet: the model.
        image_format: size of the images; they are normalised inside the graph.
        norms: the norms, from `select_resnet_norms`, whose gain and bias get a tunable addend.
    """
    b = OnnxBuilder()
    norms = norms or {}
    b.node("Sub", [b.weight("one", np.ones(1)), BATCH_STATISTICS], "running_share")
    tunables = list_resnet_tunables(norms)
    general = _write_condition(b, sorted(tunables))
    x = _write_pixels(b, image_format.mean)
    resnet = _merge_pixel_scale(resnet, image_format.std)
    if resnet.stem:

        def write_stem(w: _PlainLayers) -> list[str]:
            y = x
            for layer in resnet.stem:
                y = w.node("Relu", [w.write_layer(y, layer)], f"{layer.norm.name}/relu")
            return [y]

        (x,) = _write_branches(b, general, write_stem, norms, "stem", ["stem/out"])
    pooled = _write_embedding(b, x, resnet.embed, resnet.pool)

    def write_stages(w: _PlainLayers) -> list[str]:
        return _write_stages(w, pooled, resnet)

    _write_branches(b, general, write_stages, norms, "stages", ["logits", "features"])
    classes, width = resnet.head_weight.shape
    inputs = declare_inputs(image_format.size, tunables)
    outputs = declare_outputs(classes, len(resnet.stages), width, resnet.embed.norm.channels)
    return b.model(inputs, outputs, OPSET, "fozo", name="resnet")


class _PlainLayers:
    """Writer of layers with running statistics, constants that a runtime folds into the convolutions."""

    def __init__(self, b: OnnxBuilder) -> None:
        self.b, self.node = b, b.node

    def write_layer(self, x: str, layer: Layer) -> str:
        """Write a convolution and its batch norm."""
        return self.write_norm(_write_convolution(self.b, x, layer), layer.norm)

    def write_norm(self, x: str, norm: BatchNorm) -> str:
        """Write a batch norm."""
        parameters = {
            "weight": norm.gain,
            "bias": norm.bias,
            "running_mean": norm.mean,
            "running_var": norm.variance,
        }
        weights = [self.b.weight(f"{norm.name}.{name}", values) for name, values in parameters.items()]
        return self.node("BatchNormalization", [x, *weights], norm.name, epsilon=norm.epsilon)


class _GeneralLayers(_PlainLayers):
    """Writer of layers that mix the statistics of the batch with the running ones.

    Attributes:
        offsets: index among the flattened values of `norms` at which the addend to the gain of each tunable
            norm begins; the addend to its bias begins `widest` values later.
        widest: number of channels of the widest tunable norm.
    """

    def __init__(self, b: OnnxBuilder, norms: Mapping[str, int]) -> None:
        super().__init__(b)
        self.widest = max(norms.values(), default=0)
        self.offsets = {name: 2 * self.widest * index for index, name in enumerate(norms)}
        if norms:
            self.addends = b.reshape(NORMS, (-1,), "norms/flat")

    def write_norm(self, x: str, norm: BatchNorm) -> str:
        """Write a batch norm with mixed statistics.

        The variance is computed from deviations: in float32, a difference of large squares would be noise.
        They are deviations from the mixed mean rather than from the batch's, so that a batch whose share is
        zero changes no bit.
        """
        b, name = self.b, norm.name
        positions = b.ints(0, 2, 3)
        mean = b.node("ReduceMean", [x, positions], f"{name}/mean", keepdims=0)
        mixed_mean = _write_mixture(
            b, b.weight(f"{name}.running_mean", norm.mean), mean, f"{name}/mixed_mean"
        )
        center = b.reshape(mixed_mean, (1, -1, 1, 1), f"{name}/centre")
        centered = b.node("Sub", [x, center], f"{name}/centred")
        squares = b.node("Mul", [centered, centered], f"{name}/squares")
        squares = b.node("ReduceMean", [squares, positions], f"{name}/mean_square", keepdims=0)
        offset = b.node("Sub", [mean, mixed_mean], f"{name}/offset")
        offset = b.node("Mul", [offset, offset], f"{name}/offset_square")
        variance = b.node("Sub", [squares, offset], f"{name}/variance")
        running = b.weight(f"{name}.running_var", norm.variance)
        mixed = _write_mixture(b, running, variance, f"{name}/mixed_variance")
        gain = self._write_parameter(norm, "weight", norm.gain, 0)
        bias = self._write_parameter(norm, "bias", norm.bias, self.widest)
        zeros = b.weight(f"zeros_{norm.channels}", np.zeros(norm.channels))
        return b.node("BatchNormalization", [centered, gain, bias, zeros, mixed], name, epsilon=norm.epsilon)

    def _write_parameter(self, norm: BatchNorm, label: str, values: FloatArray, offset: int) -> str:
        """Write the sum of a stored parameter and its addend, which begins at an offset among the norm's."""
        name = f"{norm.name}.{label}"
        stored = self.b.weight(name, values)
        if norm.name not in self.offsets:
            return stored
        start = self.offsets[norm.name] + offset
        addend = self.b.slice(self.addends, start, start + norm.channels, 0, f"{name}/addend")
        return self.b.node("Add", [stored, addend], f"{name}/tuned")


def _write_condition(b: OnnxBuilder, tunables: Iterable[str]) -> str:
    """Write whether any tunable is not zero; NaN counts as such, so that it shows in the outputs."""
    total = ""
    for name in tunables:
        size = b.node("ReduceSum", [b.node("Abs", [name], f"{name}/sizes")], f"{name}/size", keepdims=0)
        total = b.node("Add", [total, size], "tunables/size") if total else size
    nothing = b.node("Equal", [total, b.weight("zero", np.zeros(()))], "tunables/nothing")
    return b.node("Not", [nothing], "tunables/something")


def _write_branches(
    b: OnnxBuilder,
    general: str,
    write: Callable[[_PlainLayers], list[str]],
    norms: Mapping[str, int],
    name: str,
    outputs: list[str],
) -> list[str]:
    """Write a computation twice, in a general and in a plain branch."""
    branches = [b.branch(f"{name}/general/"), b.branch(f"{name}/plain/")]
    results = [write(_GeneralLayers(branches[0], norms)), write(_PlainLayers(branches[1]))]
    b.choose(general, list(zip(branches, results, strict=True)), outputs, name)
    return outputs


def _write_pixels(b: OnnxBuilder, mean: tuple[float, ...]) -> str:
    """Write images `[N, 3, H, W]` in 0..255 minus their mean, so that the convolution pads with zeros."""
    x = b.node("Transpose", [IMAGES], "pixels/transpose", perm=[0, 3, 1, 2])
    x = b.node("Cast", [x], "pixels/cast", to=TensorProto.FLOAT)
    center = b.weight("pixels.mean", 255 * np.asarray(mean).reshape(1, 3, 1, 1))
    return b.node("Sub", [x, center], "pixels/centre")


def _merge_pixel_scale(resnet: Resnet, std: tuple[float, ...]) -> Resnet:
    """Return the model whose first convolution includes the scale of the pixels, `1 / (255 std)`."""
    first, *later = (*resnet.stem, resnet.embed)
    weight = first.weight.astype(np.float64) / (255 * np.asarray(std).reshape(1, 3, 1, 1))
    *stem, embed = replace(first, weight=weight), *later
    return replace(resnet, stem=tuple(stem), embed=embed)


def _write_embedding(b: OnnxBuilder, x: str, layer: Layer, pool: Window) -> str:
    """Write the last layer of the stem, ReLU and pooling, and the output `embedding`."""
    norm = layer.norm
    sign = np.where(norm.gain < 0, -1.0, 1.0)
    y = _write_convolution(b, x, replace(layer, weight=layer.weight * sign.reshape(-1, 1, 1, 1)))
    mean = b.node("ReduceMean", [y, b.ints(2, 3)], "embedding/mean", keepdims=1)
    centered = b.node("Sub", [y, mean], "embedding/centred")
    squares = b.node("Mul", [centered, centered], "embedding/squares")
    variances = b.node("ReduceMean", [squares, b.ints(2, 3)], "embedding/variance", keepdims=0)
    means = b.reshape(mean, (0, -1), "embedding/means")
    moments = [b.node("Mul", [means, b.weight("embedding.sign", sign)], "embedding/signed"), variances]
    rows = [b.node("Unsqueeze", [moment, b.ints(1)], f"{moment}/row") for moment in moments]
    b.node("Concat", rows, "embedding/concat", output="embedding", axis=1)

    batch_mean = b.node("ReduceMean", [means, b.ints(0)], f"{norm.name}/batch_mean", keepdims=0)
    spread = b.node("Sub", [means, batch_mean], f"{norm.name}/spread")
    spread = b.node("Mul", [spread, spread], f"{norm.name}/spread_squares")
    total = b.node("Add", [variances, spread], f"{norm.name}/variances")
    batch_variance = b.node("ReduceMean", [total, b.ints(0)], f"{norm.name}/batch_variance", keepdims=0)
    running_mean = b.weight(f"{norm.name}.running_mean", norm.mean * sign)
    mixed_mean = _write_mixture(b, running_mean, batch_mean, f"{norm.name}/mixed_mean")
    running_variance = b.weight(f"{norm.name}.running_var", norm.variance)
    mixed_variance = _write_mixture(b, running_variance, batch_variance, f"{norm.name}/mixed_variance")
    y = b.node("MaxPool", [y], "maxpool", **_window_attributes(pool))
    weights = [b.weight(f"{norm.name}.weight", np.abs(norm.gain)), b.weight(f"{norm.name}.bias", norm.bias)]
    inputs = [y, *weights, mixed_mean, mixed_variance]
    y = b.node("BatchNormalization", inputs, norm.name, epsilon=norm.epsilon)
    return b.node("Relu", [y], f"{norm.name}/relu")


def _write_mixture(b: OnnxBuilder, running: str, batch: str, name: str) -> str:
    """Write the mean of a running statistic and one of the batch `[C]`, weighted by their shares."""
    weighted_running = b.node("Mul", [running, "running_share"], f"{name}/running")
    weighted_batch = b.node("Mul", [batch, BATCH_STATISTICS], f"{name}/batch")
    return b.node("Add", [weighted_running, weighted_batch], name)


def _write_stages(w: _PlainLayers, x: str, resnet: Resnet) -> list[str]:
    """Write logits and features after the stem."""
    features: list[str] = []
    for number, stage in enumerate(resnet.stages, start=1):
        for index, block in enumerate(stage):
            x = _write_block(w, x, block, f"layer{number}.{index}")
        pooled = w.node("GlobalAveragePool", [x], f"feature.{number}/pool")
        features.append(w.node("Flatten", [pooled], f"feature.{number}"))
    return [_write_head(w.b, features[-1], resnet), _write_features(w.b, features, resnet.widths)]


def _write_block(w: _PlainLayers, x: str, block: Block, name: str) -> str:
    y = x
    for layer in block.layers[:-1]:
        y = w.node("Relu", [w.write_layer(y, layer)], f"{layer.norm.name}/relu")
    y = w.write_layer(y, block.layers[-1])
    if block.shortcut is not None:
        if block.shortcut.pool is not None:
            window = _window_attributes(block.shortcut.pool)
            x = w.node("AveragePool", [x], f"{name}/pool", ceil_mode=1, count_include_pad=0, **window)
        x = w.write_layer(x, block.shortcut.layer)
    return w.node("Relu", [w.node("Add", [y, x], f"{name}/sum")], f"{name}/relu")


def _write_head(b: OnnxBuilder, feature: str, resnet: Resnet) -> str:
    weights = [b.weight("fc.weight", resnet.head_weight), b.weight("fc.bias", resnet.head_bias)]
    return b.node("Gemm", [feature, *weights], "fc", transB=1)


def _write_features(b: OnnxBuilder, features: Sequence[str], widths: Sequence[int]) -> str:
    """Write the features of all stages `[N, L, F]`, padded with zeros to the width of the last."""
    rows = []
    for number, (feature, width) in enumerate(zip(features, widths, strict=True), start=1):
        if width < widths[-1]:
            padding = b.ints(0, 0, 0, widths[-1] - width)
            feature = b.node("Pad", [feature, padding], f"feature.{number}/padded")
        rows.append(b.node("Unsqueeze", [feature, b.ints(1)], f"feature.{number}/row"))
    return b.node("Concat", rows, "features/concat", axis=1)


def _write_convolution(b: OnnxBuilder, x: str, layer: Layer) -> str:
    weight = b.weight(f"{layer.name}.weight", layer.weight)
    return b.node("Conv", [x, weight], layer.name, group=layer.groups, **_window_attributes(layer.window))


def _window_attributes(window: Window) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        "kernel_shape": window.kernel,
        "strides": window.stride,
        "pads": (*window.padding, *window.padding),
    }
    return attributes if window.dilation == (1, 1) else {**attributes, "dilations": window.dilation}
