"""Plain description of a timm VisionTransformer, and the reasons why a model cannot be exported.

Models with any part that the description cannot express are rejected with the reason. The exported graph is
compared with PyTorch afterwards all the same (verify.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from timm import layers
from timm.models import deit, vision_transformer
from torch import nn

from ..engine.errors import ExportError
from ..engine.model import FloatArray
from .parameters import read_array, read_array_or, read_pair
from .transformer_model import Block, Linear, Norm, convert_linear, convert_norm, scale_outputs, split_qkv


@dataclass(frozen=True)
class Vit:
    """A class-token vision transformer.

    Attributes:
        image_size: height and width in pixels.
        patch_size: height and width of a patch in pixels.
        patch: embedding of a patch, weight `[D, patch height · patch width · 3]` in the order of pixels.
        patch_norm: norm of the embedded patches, or None.
        prefix: tokens before the patches, `[prefix, D]`, with their position embedding: class token first,
            then a distillation token or registers.
        positions: position embedding of the patches, `[M, D]`.
        norm_pre: norm of all tokens before the first block, or None.
        blocks: the blocks.
        norm: the final norm.
        head: the classifier, reading the concatenation of the first `readout` tokens.
        readout: 1, or 2 for distilled DeiT, which averages the classifiers of two tokens.
    """

    image_size: tuple[int, int]
    patch_size: tuple[int, int]
    patch: Linear
    patch_norm: Norm | None
    prefix: FloatArray
    positions: FloatArray
    norm_pre: Norm | None
    blocks: tuple[Block, ...]
    norm: Norm
    head: Linear
    readout: int

    @property
    def head_bias(self) -> FloatArray:
        """Bias of the classifier, `[K]`; zeros where it has none."""
        bias = self.head.bias
        return np.zeros(len(self.head.weight), np.float32) if bias is None else bias

    @property
    def width(self) -> int:
        """D, the width of a token."""
        return int(self.prefix.shape[1])

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.image_size[0] // self.patch_size[0], self.image_size[1] // self.patch_size[1]

    @property
    def tokens(self) -> int:
        """Tokens without prompts."""
        return len(self.prefix) + len(self.positions)


def read_vit(model: nn.Module) -> Vit:
    """Read a timm model.

    Raises:
        ExportError: it is not a class-token VisionTransformer, or has an unsupported part.
    """
    _require(
        type(model) in (vision_transformer.VisionTransformer, deit.VisionTransformerDistilled),
        f"is a {type(model).__name__}, not timm's VisionTransformer",
    )
    model = model.eval()
    distilled = isinstance(model, deit.VisionTransformerDistilled)
    _require(
        model.cls_token is not None and model.global_pool == "token" and model.attn_pool is None,
        f"classifies from pooling {model.global_pool!r}, and the features that adaptation needs are those "
        "of a class token",
    )
    _require(isinstance(model.fc_norm, nn.Identity), "normalises again after pooling (fc_norm)")
    _require(
        isinstance(model.head, nn.Linear),
        "has no classifier; give --num-classes with --weights that hold one",
    )
    embed = model.patch_embed
    _require(
        type(embed) is layers.PatchEmbed and embed.proj.in_channels == 3,
        f"embeds with {type(embed).__name__} of {_count_channels(embed)} channels, not with PatchEmbed of 3",
    )
    return Vit(
        image_size=read_pair(embed.img_size),
        patch_size=read_pair(embed.patch_size),
        patch=convert_patch(embed.proj),
        patch_norm=_read_norm(embed.norm, "patch_embed.norm"),
        **_read_tokens(model, distilled),
        norm_pre=_read_norm(model.norm_pre, "norm_pre"),
        blocks=tuple(_read_block(block, f"blocks.{index}") for index, block in enumerate(model.blocks)),
        norm=_read_required_norm(model.norm, "norm"),
        head=_merge_heads(model) if distilled else convert_linear(model.head),
        readout=2 if distilled else 1,
    )


def _require(condition: bool, reason: str) -> None:
    if not condition:
        raise ExportError(
            f"this model cannot be exported: it {reason}; class-token ViT, DeiT and DINOv2 models of "
            "timm's VisionTransformer can"
        )


def _count_channels(embed: Any) -> int | str:
    return embed.proj.in_channels if hasattr(embed, "proj") else "?"


def convert_patch(convolution: nn.Conv2d) -> Linear:
    """Return a convolution as a linear layer over patches laid out as rows, columns, channels."""
    weight = read_array(convolution.weight).transpose(0, 2, 3, 1)
    bias = read_array_or(np.zeros(len(weight), np.float32), convolution.bias)
    return Linear(weight.reshape(len(weight), -1), bias)


def _read_tokens(model: Any, distilled: bool) -> dict[str, FloatArray]:
    extra = model.dist_token if distilled else model.reg_token
    prefix = np.concatenate([read_array(token)[0] for token in (model.cls_token, extra) if token is not None])
    patches = model.patch_embed.num_patches
    if model.pos_embed is None:
        return {"prefix": prefix, "positions": np.zeros((patches, prefix.shape[1]), np.float32)}
    positions = read_array(model.pos_embed)[0]
    if not model.no_embed_class:
        prefix = prefix + positions[: len(prefix)]
        positions = positions[len(prefix) :]
    _require(len(positions) == patches, f"has {len(positions)} position embeddings for {patches} patches")
    return {"prefix": prefix, "positions": positions}


def _merge_heads(model: Any) -> Linear:
    """Return both classifiers as one that reads both tokens and averages."""
    heads = [convert_linear(model.head), convert_linear(model.head_dist)]
    weight = np.concatenate([head.weight for head in heads], axis=1) / 2
    biases = [head.bias for head in heads if head.bias is not None]
    return Linear(weight, sum(biases, np.zeros(len(weight), np.float32)) / 2)


def _read_norm(layer: Any, where: str) -> Norm | None:
    if isinstance(layer, nn.Identity):
        return None
    _require(isinstance(layer, nn.LayerNorm), f"has a {type(layer).__name__} at {where}, not a LayerNorm")
    return convert_norm(layer)


def _read_required_norm(layer: Any, where: str) -> Norm:
    norm = _read_norm(layer, where)
    if norm is None:
        raise ExportError(
            f"this model cannot be exported: it has no norm at {where}, and the features that "
            "adaptation needs are normalised ones"
        )
    return norm


def _read_block(block: Any, name: str) -> Block:
    _require(
        type(block) is vision_transformer.Block, f"has a {type(block).__name__} at {name}, not a plain Block"
    )
    attention, mlp = block.attn, block.mlp
    _require(
        type(attention) is layers.Attention and getattr(attention, "gate", None) is None,
        f"has attention of another kind at {name} ({type(attention).__name__})",
    )
    _require(type(mlp) in (layers.Mlp, layers.GluMlp), f"has a {type(mlp).__name__} at {name}, not an MLP")
    query, key, value = split_qkv(convert_linear(attention.qkv))
    gate = None if type(mlp) is layers.Mlp else "last" if mlp.gate_last else "first"
    return Block(
        norm1=_read_required_norm(block.norm1, f"{name}.norm1"),
        query=query,
        key=key,
        value=value,
        query_norm=_read_norm(attention.q_norm, f"{name}.attn.q_norm"),
        key_norm=_read_norm(attention.k_norm, f"{name}.attn.k_norm"),
        heads=int(attention.num_heads),
        attention_norm=_read_norm(attention.norm, f"{name}.attn.norm"),
        proj=_merge_layer_scale(convert_linear(attention.proj), block.ls1, f"{name}.ls1"),
        norm2=_read_required_norm(block.norm2, f"{name}.norm2"),
        fc1=convert_linear(mlp.fc1),
        activation=_name_activation(mlp.act, name),
        gate=gate,
        mlp_norm=_read_norm(mlp.norm, f"{name}.mlp.norm"),
        fc2=_merge_layer_scale(convert_linear(mlp.fc2), block.ls2, f"{name}.ls2"),
    )


def _merge_layer_scale(linear: Linear, scale: Any, where: str) -> Linear:
    """Return a linear layer and the layer scale after it as one linear layer."""
    if isinstance(scale, nn.Identity):
        return linear
    _require(type(scale) is vision_transformer.LayerScale, f"has a {type(scale).__name__} at {where}")
    return scale_outputs(linear, read_array(scale.gamma))


_ACTIVATIONS: dict[type[nn.Module], Callable[[Any], str]] = {
    nn.GELU: lambda layer: "gelu_tanh" if layer.approximate == "tanh" else "gelu",
    layers.GELU: lambda layer: "gelu",
    layers.GELUTanh: lambda layer: "gelu_tanh",
    layers.QuickGELU: lambda layer: "quick_gelu",
    nn.ReLU: lambda layer: "relu",
    nn.SiLU: lambda layer: "silu",
}


def _name_activation(layer: nn.Module, where: str) -> str:
    _require(type(layer) in _ACTIVATIONS, f"has the activation {type(layer).__name__} at {where}")
    return _ACTIVATIONS[type(layer)](layer)
