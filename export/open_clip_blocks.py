"""Blocks of open_clip's transformers as plain descriptions, and the reasons why they cannot be exported."""

from __future__ import annotations

from typing import Any

from open_clip import transformer
from torch import nn

from ..engine.errors import ExportError
from .parameters import read_array
from .transformer_model import (
    Block,
    Linear,
    Norm,
    convert_linear,
    convert_norm,
    scale_outputs,
    split_qkv,
)


def require(condition: bool, reason: str) -> None:
    """Refuse a model of open_clip for a reason, which completes the sentence "it …".

    Raises:
        ExportError: the condition does not hold.
    """
    if not condition:
        raise ExportError(
            f"this model cannot be exported: it {reason}; models of open_clip can that have a plain vision "
            "transformer with a class token and a plain causal text transformer, such as ViT-B-32, ViT-B-16 "
            "and ViT-L-14"
        )


def read_blocks(tower: Any, where: str) -> tuple[Block, ...]:
    """Read the blocks of a tower.

    Args:
        tower: open_clip's `Transformer`.
        where: name of the tower, for messages.

    Raises:
        ExportError: a block has an unsupported part.
    """
    require(type(tower) is transformer.Transformer, f"has a {type(tower).__name__} as {where}")
    require(bool(tower.resblocks), f"has no blocks in its {where}")
    return tuple(
        _read_block(block, f"block {index} of its {where}") for index, block in enumerate(tower.resblocks)
    )


def read_norm(layer: Any, where: str) -> Norm:
    """Read a layer norm.

    Raises:
        ExportError: it is of another kind.
    """
    require(isinstance(layer, nn.LayerNorm), f"has a {type(layer).__name__} as {where}, not a layer norm")
    return convert_norm(layer)


def _read_block(block: Any, where: str) -> Block:
    require(
        type(block) is transformer.ResidualAttentionBlock and not hasattr(block, "ln_1_kv"),
        f"has a {type(block).__name__} as {where}, not a plain residual block of attention and MLP",
    )
    attention, mlp = block.attn, block.mlp
    require(
        type(attention) is nn.MultiheadAttention
        and attention.in_proj_weight is not None
        and attention.bias_k is None
        and not attention.add_zero_attn,
        f"has attention of another kind in {where}",
    )
    query, key, value = split_qkv(_read_projections(attention))
    return Block(
        norm1=read_norm(block.ln_1, f"first norm of {where}"),
        query=query,
        key=key,
        value=value,
        query_norm=None,
        key_norm=None,
        heads=int(attention.num_heads),
        attention_norm=None,
        proj=_merge_layer_scale(convert_linear(attention.out_proj), block.ls_1, where),
        norm2=read_norm(block.ln_2, f"second norm of {where}"),
        fc1=convert_linear(mlp.c_fc),
        activation=_name_activation(mlp.gelu, where),
        gate=None,
        mlp_norm=None,
        fc2=_merge_layer_scale(convert_linear(mlp.c_proj), block.ls_2, where),
    )


def _read_projections(attention: nn.MultiheadAttention) -> Linear:
    bias = attention.in_proj_bias
    return Linear(read_array(attention.in_proj_weight), None if bias is None else read_array(bias))


def _merge_layer_scale(linear: Linear, scale: Any, where: str) -> Linear:
    if isinstance(scale, nn.Identity):
        return linear
    require(
        type(scale) is transformer.LayerScale, f"scales its layers by a {type(scale).__name__} in {where}"
    )
    return scale_outputs(linear, read_array(scale.gamma))


def _name_activation(layer: nn.Module, where: str) -> str:
    if isinstance(layer, nn.GELU):
        return "gelu_tanh" if layer.approximate == "tanh" else "gelu"
    require(type(layer) is transformer.QuickGELU, f"has the activation {type(layer).__name__} in {where}")
    return "quick_gelu"
