"""A residual network as an ONNX graph that follows the graph contract (docs/bundle.md).

Batch norms are what adaptation changes: their statistics, between the running ones and those of the batch,
and addends to their gain and bias. A network that is used as it is shall not pay for that, so the stages are
there twice, in the two branches of an `If`: convolutions with plain BatchNormalization, which every runtime
makes part of the convolution, and the general computation. Both read the same weights.

The stem is there once. The embedding is made from the output of its last convolution, and this batch norm's
statistics come from the embedding. Where its gain is negative the convolution is negated instead, so that the
rest of the norm and ReLU, which are then increasing functions, can follow the maximum pooling: on a quarter
of the values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from ..engine.model import FloatArray
from .onnx_builder import OnnxBuilder, Values
from .resnet import BatchNorm, Layer, Resnet, Window

OPSET = 20


def tunable_norms(resnet: Resnet, blocks: Iterable[int] | None = None) -> dict[str, int]:
    """The norms of some blocks that ZOA tunes, `bn1` and `bn2`, each with its number of channels.

    Args:
        resnet: the model.
        blocks: counted from 0 over all stages; None is all of them.
    """
    chosen = range(len(resnet.blocks)) if blocks is None else sorted(set(blocks))
    norms = [layer.norm for index in chosen for layer in resnet.blocks[index].layers[:2]]
    return {norm.name: norm.channels for norm in norms}


def build_resnet_graph(
    resnet: Resnet,
    image_size: tuple[int, int],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    tunable: Mapping[str, int] | None = None,
) -> onnx.ModelProto:
    """The graph of a model: images and tunables in; logits, features and moments of the embedding out.

    Args:
        resnet: the model.
        image_size: height and width in pixels.
        mean: per channel, of images scaled to 0..1, subtracted inside the graph.
        std: per channel, of images scaled to 0..1, divided by inside the graph.
        tunable: from `tunable_norms`, or a part of it: what gets a tunable addend to gain and bias.
    """
    b = OnnxBuilder()
    norms = dict(tunable or {})
    widest = max(norms.values(), default=0)
    b.node("Sub", [b.weight("one", np.ones(1)), "batch_statistics"], "running_share")
    general = _is_general(b, tuned=bool(norms))
    x = _centred_pixels(b, mean)
    resnet = _reading_bytes(resnet, std)
    if resnet.stem:

        def stem(w: _Plain) -> list[str]:
            y = x
            for layer in resnet.stem:
                y = w.node("Relu", [w.layer(y, layer)], f"{layer.norm.name}/relu")
            return [y]

        (x,) = _either(b, general, stem, norms, "stem", ["stem/out"])
    pooled = _embed(b, x, resnet.embed, resnet.pool)
    _either(b, general, lambda w: _stages(w, pooled, resnet), norms, "stages", ["logits", "features"])
    inputs: Values = {"images": (TensorProto.UINT8, ["N", *image_size, 3])}
    if norms:
        inputs["norms"] = (TensorProto.FLOAT, [1, len(norms), 2, widest])
    inputs["batch_statistics"] = (TensorProto.FLOAT, [1])
    classes, width = resnet.head_weight.shape
    outputs: Values = {
        "logits": (TensorProto.FLOAT, ["N", classes]),
        "features": (TensorProto.FLOAT, ["N", len(resnet.stages), width]),
        "embedding": (TensorProto.FLOAT, ["N", 2, resnet.embed.norm.channels]),
    }
    return b.model(inputs, outputs, OPSET, "fozo", name="resnet")


class _Plain:
    """Writes layers with the running statistics: constants that a runtime folds into the convolutions."""

    def __init__(self, b: OnnxBuilder) -> None:
        self.b, self.node = b, b.node

    def layer(self, x: str, layer: Layer) -> str:
        """A convolution and its batch norm."""
        return self.norm(_convolution(self.b, x, layer), layer.norm)

    def norm(self, x: str, norm: BatchNorm) -> str:
        """A batch norm."""
        parts = {
            "weight": norm.gain,
            "bias": norm.bias,
            "running_mean": norm.mean,
            "running_var": norm.variance,
        }
        weights = [self.b.weight(f"{norm.name}.{part}", values) for part, values in parts.items()]
        return self.node("BatchNormalization", [x, *weights], norm.name, epsilon=norm.epsilon)


class _General(_Plain):
    """Writes layers whose statistics are mixed from those of the batch and the running ones.

    Attributes:
        offsets: where the addend to the gain of each tunable norm starts among the values of `norms`; that
            to its bias follows after `widest` values.
        widest: channels of the widest tunable norm.
    """

    def __init__(self, b: OnnxBuilder, norms: Mapping[str, int]) -> None:
        super().__init__(b)
        self.widest = max(norms.values(), default=0)
        self.offsets = {name: 2 * self.widest * index for index, name in enumerate(norms)}
        if norms:
            self.addends = b.reshape("norms", (-1,), "norms/flat")

    def norm(self, x: str, norm: BatchNorm) -> str:
        """Deviations from the mixed mean first: in float32, a difference of large squares would be noise.

        Around the mixed mean and not that of the batch, so that the batch has no influence, to the bit,
        where its share is zero.
        """
        b, name = self.b, norm.name
        positions = b.ints(0, 2, 3)
        mean = b.node("ReduceMean", [x, positions], f"{name}/mean", keepdims=0)
        mixed_mean = _mixed(b, b.weight(f"{name}.running_mean", norm.mean), mean, f"{name}/mixed_mean")
        centred = b.node(
            "Sub", [x, b.reshape(mixed_mean, (1, -1, 1, 1), f"{name}/centre")], f"{name}/centred"
        )
        squares = b.node("Mul", [centred, centred], f"{name}/squares")
        squares = b.node("ReduceMean", [squares, positions], f"{name}/mean_square", keepdims=0)
        offset = b.node("Sub", [mean, mixed_mean], f"{name}/offset")
        offset = b.node("Mul", [offset, offset], f"{name}/offset_square")
        variance = b.node("Sub", [squares, offset], f"{name}/variance")
        mixed = _mixed(b, b.weight(f"{name}.running_var", norm.variance), variance, f"{name}/mixed_variance")
        parts = [self._parameter(norm, "weight", norm.gain, 0), self._parameter(norm, "bias", norm.bias, 1)]
        zeros = b.weight(f"zeros_{norm.channels}", np.zeros(norm.channels))
        return b.node("BatchNormalization", [centred, *parts, zeros, mixed], name, epsilon=norm.epsilon)

    def _parameter(self, norm: BatchNorm, part: str, values: FloatArray, index: int) -> str:
        name = f"{norm.name}.{part}"
        stored = self.b.weight(name, values)
        if norm.name not in self.offsets:
            return stored
        start = self.offsets[norm.name] + index * self.widest
        addend = self.b.slice(self.addends, start, start + norm.channels, 0, f"{name}/addend")
        return self.b.node("Add", [stored, addend], f"{name}/tuned")


def _is_general(b: OnnxBuilder, *, tuned: bool) -> str:
    """Whether anything is tuned; what is not a number counts, so that it shows in the outputs."""
    total = ""
    for name in ("batch_statistics", "norms") if tuned else ("batch_statistics",):
        size = b.node("ReduceSum", [b.node("Abs", [name], f"{name}/sizes")], f"{name}/size", keepdims=0)
        total = b.node("Add", [total, size], "tunables/size") if total else size
    nothing = b.node("Equal", [total, b.weight("zero", np.zeros(()))], "tunables/nothing")
    return b.node("Not", [nothing], "tunables/something")


def _either(
    b: OnnxBuilder,
    general: str,
    write: Callable[[_Plain], list[str]],
    norms: Mapping[str, int],
    name: str,
    outputs: list[str],
) -> list[str]:
    """What `write` writes, in a general and in a plain branch."""
    branches = [b.branch(f"{name}/general/"), b.branch(f"{name}/plain/")]
    results = [write(_General(branches[0], norms)), write(_Plain(branches[1]))]
    b.either(general, list(zip(branches, results, strict=True)), outputs, name)
    return outputs


def _centred_pixels(b: OnnxBuilder, mean: tuple[float, ...]) -> str:
    """Images `[N, 3, H, W]` in 0..255 without their mean, so that the convolution's padding is zero."""
    x = b.node("Transpose", ["images"], "pixels/transpose", perm=[0, 3, 1, 2])
    x = b.node("Cast", [x], "pixels/cast", to=TensorProto.FLOAT)
    centre = b.weight("pixels.mean", 255 * np.asarray(mean).reshape(1, 3, 1, 1))
    return b.node("Sub", [x, centre], "pixels/centre")


def _reading_bytes(resnet: Resnet, std: tuple[float, ...]) -> Resnet:
    """The model with the scale of its images, `1 / (255 std)`, in its first convolution."""
    first, *rest = (*resnet.stem, resnet.embed)
    weight = first.weight.astype(np.float64) / (255 * np.asarray(std).reshape(1, 3, 1, 1))
    *stem, embed = replace(first, weight=weight), *rest
    return replace(resnet, stem=tuple(stem), embed=embed)


def _embed(b: OnnxBuilder, x: str, layer: Layer, pool: Window) -> str:
    """The last layer of the stem, ReLU and pooling; writes the output `embedding` on the way."""
    norm = layer.norm
    sign = np.where(norm.gain < 0, -1.0, 1.0)
    y = _convolution(b, x, replace(layer, weight=layer.weight * sign.reshape(-1, 1, 1, 1)))
    mean = b.node("ReduceMean", [y, b.ints(2, 3)], "embedding/mean", keepdims=1)
    centred = b.node("Sub", [y, mean], "embedding/centred")
    squares = b.node("Mul", [centred, centred], "embedding/squares")
    variances = b.node("ReduceMean", [squares, b.ints(2, 3)], "embedding/variance", keepdims=0)
    means = b.reshape(mean, (0, -1), "embedding/means")
    both = [b.node("Mul", [means, b.weight("embedding.sign", sign)], "embedding/signed"), variances]
    both = [b.node("Unsqueeze", [each, b.ints(1)], f"{each}/row") for each in both]
    b.node("Concat", both, "embedding/concat", output="embedding", axis=1)

    batch_mean = b.node("ReduceMean", [means, b.ints(0)], f"{norm.name}/batch_mean", keepdims=0)
    spread = b.node("Sub", [means, batch_mean], f"{norm.name}/spread")
    spread = b.node("Mul", [spread, spread], f"{norm.name}/spread_squares")
    total = b.node("Add", [variances, spread], f"{norm.name}/variances")
    batch_variance = b.node("ReduceMean", [total, b.ints(0)], f"{norm.name}/batch_variance", keepdims=0)
    running = b.weight(f"{norm.name}.running_mean", norm.mean * sign)
    statistics = [
        _mixed(b, running, batch_mean, f"{norm.name}/mixed_mean"),
        _mixed(
            b,
            b.weight(f"{norm.name}.running_var", norm.variance),
            batch_variance,
            f"{norm.name}/mixed_variance",
        ),
    ]
    y = b.node("MaxPool", [y], "maxpool", **_window(pool))
    weights = [b.weight(f"{norm.name}.weight", np.abs(norm.gain)), b.weight(f"{norm.name}.bias", norm.bias)]
    y = b.node("BatchNormalization", [y, *weights, *statistics], norm.name, epsilon=norm.epsilon)
    return b.node("Relu", [y], f"{norm.name}/relu")


def _mixed(b: OnnxBuilder, running: str, batch: str, name: str) -> str:
    """A running statistic and one of the batch `[C]`, by their shares."""
    parts = [
        b.node("Mul", [running, "running_share"], f"{name}/running"),
        b.node("Mul", [batch, "batch_statistics"], f"{name}/batch"),
    ]
    return b.node("Add", parts, name)


def _stages(w: _Plain, x: str, resnet: Resnet) -> list[str]:
    """Logits and features after the stem."""
    features: list[str] = []
    for number, stage in enumerate(resnet.stages, start=1):
        for index, block in enumerate(stage):
            name, y = f"layer{number}.{index}", x
            for layer in block.layers[:-1]:
                y = w.node("Relu", [w.layer(y, layer)], f"{layer.norm.name}/relu")
            y = w.layer(y, block.layers[-1])
            if block.shortcut is not None:
                pool = block.shortcut.pool
                if pool is not None:
                    x = w.node(
                        "AveragePool", [x], f"{name}/pool", ceil_mode=1, count_include_pad=0, **_window(pool)
                    )
                x = w.layer(x, block.shortcut.layer)
            x = w.node("Relu", [w.node("Add", [y, x], f"{name}/sum")], f"{name}/relu")
        pooled = w.node("GlobalAveragePool", [x], f"feature.{number}/pool")
        features.append(w.node("Flatten", [pooled], f"feature.{number}"))
    return [_head(w.b, features[-1], resnet), _padded(w.b, features, resnet.widths)]


def _head(b: OnnxBuilder, feature: str, resnet: Resnet) -> str:
    weights = [b.weight("fc.weight", resnet.head_weight), b.weight("fc.bias", resnet.head_bias)]
    return b.node("Gemm", [feature, *weights], "fc", transB=1)


def _padded(b: OnnxBuilder, features: Sequence[str], widths: Sequence[int]) -> str:
    """The features of all stages `[N, L, F]`, with zeros up to the width of the last."""
    rows = []
    for number, (feature, width) in enumerate(zip(features, widths, strict=True), start=1):
        if width < widths[-1]:
            padding = b.ints(0, 0, 0, widths[-1] - width)
            feature = b.node("Pad", [feature, padding], f"feature.{number}/padded")
        rows.append(b.node("Unsqueeze", [feature, b.ints(1)], f"feature.{number}/row"))
    return b.node("Concat", rows, "features/concat", axis=1)


def _convolution(b: OnnxBuilder, x: str, layer: Layer) -> str:
    weight = b.weight(f"{layer.name}.weight", layer.weight)
    return b.node("Conv", [x, weight], layer.name, group=layer.groups, **_window(layer.window))


def _window(window: Window) -> dict[str, Any]:
    described: dict[str, Any] = {
        "kernel_shape": window.kernel,
        "strides": window.stride,
        "pads": (*window.padding, *window.padding),
    }
    return described if window.dilation == (1, 1) else {**described, "dilations": window.dilation}
