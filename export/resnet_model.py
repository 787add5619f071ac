"""Plain description of a timm ResNet, and the reasons why a model cannot be exported.

As for vision transformers (vit_model.py), models with any part that the description cannot express are
rejected with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from timm import layers
from timm.models import resnet
from torch import nn

from ..engine.errors import ExportError
from ..engine.model import FloatArray
from .parameters import read_array, read_array_or, read_pair

Pair = tuple[int, int]
# A convolution and its name, the norm after it and its name, the activation after that.
LayerModules = tuple[Any, str, Any, str, Any]


@dataclass(frozen=True)
class Window:
    """Steps of a kernel over an image; rows first, padding the same on both sides."""

    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair = (1, 1)


@dataclass(frozen=True)
class BatchNorm:
    """`gain · (x − mean) / sqrt(variance + epsilon) + bias` per channel, all float32 `[C]`.

    Attributes:
        name: name of the PyTorch module.
        gain, bias: the parameters.
        mean, variance: the running statistics.
        epsilon: added to the variance.
    """

    name: str
    gain: FloatArray
    bias: FloatArray
    mean: FloatArray
    variance: FloatArray
    epsilon: float

    @property
    def channels(self) -> int:
        """Number of channels, C."""
        return len(self.gain)


@dataclass(frozen=True)
class Layer:
    """A convolution without bias, and the batch norm behind it.

    Attributes:
        name: name of the convolution's PyTorch module.
        weight: float32 `[out, in / groups, rows, columns]`.
        window: kernel, stride, padding and dilation.
        groups: number of groups of channels.
        norm: the batch norm.
    """

    name: str
    weight: FloatArray
    window: Window
    groups: int
    norm: BatchNorm


@dataclass(frozen=True)
class Shortcut:
    """Shortcut that changes the shape.

    Attributes:
        pool: average pooling before the layer, whose windows may reach over the edge, or None.
        layer: convolution and batch norm.
    """

    pool: Window | None
    layer: Layer


@dataclass(frozen=True)
class Block:
    """A residual block: `relu(last(relu(… first(x))) + shortcut(x))`.

    Attributes:
        layers: two (BasicBlock) or three (Bottleneck); a ReLU follows all but the last.
        shortcut: None stands for the identity.
    """

    layers: tuple[Layer, ...]
    shortcut: Shortcut | None


@dataclass(frozen=True)
class Resnet:
    """A residual network with batch norms.

    Attributes:
        stem: layers before the last one of a deep stem, each with a ReLU; empty for the plain 7 × 7 stem.
        embed: the last layer of the stem; its convolution's output is the embedding. A ReLU follows.
        pool: maximum pooling after the stem.
        stages: blocks by stage.
        head_weight: float32 `[K, F]`, on the global average of the last stage.
        head_bias: float32 `[K]`.
    """

    stem: tuple[Layer, ...]
    embed: Layer
    pool: Window
    stages: tuple[tuple[Block, ...], ...]
    head_weight: FloatArray
    head_bias: FloatArray

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The blocks of all stages, in the order of computation."""
        return tuple(block for stage in self.stages for block in stage)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels after each stage."""
        return tuple(stage[-1].layers[-1].norm.channels for stage in self.stages)


def read_resnet(model: nn.Module) -> Resnet:
    """Read a timm model.

    Raises:
        ExportError: it is not a ResNet with batch norms, or has an unsupported part.
    """
    _require(type(model) is resnet.ResNet, f"is a {type(model).__name__}, not timm's ResNet")
    model = model.eval()
    _require(
        isinstance(model.global_pool, layers.SelectAdaptivePool2d)
        and model.global_pool.pool_type in ("avg", "fast", "fastavg"),
        f"classifies from pooling {getattr(model.global_pool, 'pool_type', '?')!r}, not from the average",
    )
    _require(
        isinstance(model.fc, nn.Linear), "has no classifier; give --num-classes with --weights that hold one"
    )
    stem = _read_stem(model)
    _require(
        stem[0].weight.shape[1] == 3, f"reads images of {stem[0].weight.shape[1]} channels, expected three"
    )
    stages = tuple(
        tuple(_read_block(block, f"layer{number}.{index}") for index, block in enumerate(stage))
        for number, stage in enumerate((model.layer1, model.layer2, model.layer3, model.layer4), start=1)
    )
    _require(all(stages), "has a stage without blocks")
    weight = read_array(model.fc.weight)
    description = Resnet(
        stem=tuple(stem[:-1]),
        embed=stem[-1],
        pool=_read_max_pool(model.maxpool),
        stages=stages,
        head_weight=weight,
        head_bias=read_array_or(np.zeros(len(weight), np.float32), model.fc.bias),
    )
    _require(
        max(description.widths) == description.widths[-1] == weight.shape[1],
        f"has stages of {description.widths} channels, and the last must be the widest",
    )
    return description


def _require(condition: bool, reason: str) -> None:
    if not condition:
        raise ExportError(
            f"this model cannot be exported: it {reason}; residual networks of timm's ResNet with batch "
            "norms and ReLU, like resnet18, resnet50 or resnext50_32x4d, can"
        )


def _read_stem(model: Any) -> list[Layer]:
    if not isinstance(model.conv1, nn.Sequential):
        stem: list[LayerModules] = [(model.conv1, "conv1", model.bn1, "bn1", model.act1)]
    else:
        modules = list(model.conv1)
        _require(len(modules) == 7, f"has a stem of {len(modules)} modules at conv1, expected 1 or 7")
        stem = [(modules[i], f"conv1.{i}", modules[i + 1], f"conv1.{i + 1}", modules[i + 2]) for i in (0, 3)]
        stem.append((modules[6], "conv1.6", model.bn1, "bn1", model.act1))
    return [_read_activated_layer(*layer) for layer in stem]


def _read_block(block: Any, name: str) -> Block:
    layer_counts = {resnet.BasicBlock: 2, resnet.Bottleneck: 3}
    _require(
        type(block) in layer_counts,
        f"has a {type(block).__name__} at {name}, neither a BasicBlock nor a Bottleneck",
    )
    _require(block.se is None, f"has attention over channels ({type(block.se).__name__}) at {name}.se")
    _require(isinstance(block.aa, nn.Identity), f"has anti-aliasing ({type(block.aa).__name__}) at {name}.aa")
    block_layers = []
    for i in range(1, 1 + layer_counts[type(block)]):
        conv, norm, activation = (getattr(block, f"{module}{i}") for module in ("conv", "bn", "act"))
        block_layers.append(_read_activated_layer(conv, f"{name}.conv{i}", norm, f"{name}.bn{i}", activation))
    return Block(tuple(block_layers), _read_shortcut(block.downsample, f"{name}.downsample"))


def _read_shortcut(downsample: Any, name: str) -> Shortcut | None:
    if downsample is None:
        return None
    modules = list(downsample)
    _require(len(modules) in (2, 3), f"has {len(modules)} modules at {name}, expected two or three")
    pool = (
        None
        if len(modules) == 2 or isinstance(modules[0], nn.Identity)
        else _read_average_pool(modules[0], name)
    )
    first = len(modules) - 2
    conv, norm = modules[first:]
    return Shortcut(pool, _read_layer(conv, f"{name}.{first}", norm, f"{name}.{first + 1}"))


def _read_activated_layer(conv: Any, conv_name: str, norm: Any, norm_name: str, activation: Any) -> Layer:
    _require(
        type(activation) is nn.ReLU,
        f"has the activation {type(activation).__name__} after {norm_name}, not ReLU",
    )
    return _read_layer(conv, conv_name, norm, norm_name)


def _read_layer(conv: Any, conv_name: str, norm: Any, norm_name: str) -> Layer:
    _require(
        type(conv) is nn.Conv2d
        and conv.bias is None
        and conv.padding_mode == "zeros"
        and not isinstance(conv.padding, str),
        f"has a {type(conv).__name__} at {conv_name} that is no plain Conv2d without bias",
    )
    _require(
        type(norm) is nn.BatchNorm2d and norm.running_mean is not None,
        f"has a {type(norm).__name__} at {norm_name}, not a BatchNorm2d with running statistics",
    )
    return Layer(
        name=conv_name,
        weight=read_array(conv.weight),
        window=Window(*(read_pair(v) for v in (conv.kernel_size, conv.stride, conv.padding, conv.dilation))),
        groups=int(conv.groups),
        norm=_read_norm(norm, norm_name),
    )


def _read_norm(norm: Any, name: str) -> BatchNorm:
    mean, variance = read_array(norm.running_mean), read_array(norm.running_var)
    return BatchNorm(
        name=name,
        gain=read_array_or(np.ones_like(mean), norm.weight),
        bias=read_array_or(np.zeros_like(mean), norm.bias),
        mean=mean,
        variance=variance,
        epsilon=float(norm.eps),
    )


def _read_max_pool(pool: Any) -> Window:
    _require(
        type(pool) is nn.MaxPool2d and not pool.ceil_mode and read_pair(pool.dilation) == (1, 1),
        f"has a {type(pool).__name__} after its stem that is no plain MaxPool2d",
    )
    return Window(read_pair(pool.kernel_size), read_pair(pool.stride), read_pair(pool.padding))


def _read_average_pool(pool: Any, name: str) -> Window:
    window = Window(read_pair(pool.kernel_size), read_pair(pool.stride), read_pair(pool.padding))
    _require(
        type(pool) is nn.AvgPool2d
        and pool.ceil_mode
        and not pool.count_include_pad
        and pool.divisor_override is None
        and window.padding == (0, 0),
        f"has a {type(pool).__name__} at {name} that is not pooled as in ResNet-D",
    )
    return window
