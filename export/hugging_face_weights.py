"""Weights of ViT and DeiT classifiers with the names of Hugging Face's transformers, named as timm does."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..engine.errors import ExportError
from .checkpoint_file import State, holds_its_values
from .hugging_face_file import read_settings

SETTINGS = "config.json"
# Only files that name the model are mapped: `ViTModel` alone has other names, and no classifier.
_MODEL = re.compile(r"((?:.*\.)?)(?:vit|deit)\.(.+)")
_LAYER = re.compile(r"(?:encoder\.layer|layers)\.(\d+)\.(.+)\.(weight|bias)")  # of files, of version 5
_HEAD = re.compile(r"((?:.*\.)?)(classifier|cls_classifier|distillation_classifier)\.(weight|bias)")
_QUERY = re.compile(r"(.+\.attention)\.(attention\.query|q_proj)\.(weight|bias)")
_SIBLINGS = {
    "attention.query": ("attention.key", "attention.value"),
    "q_proj": ("k_proj", "v_proj"),
}
_NAMES = {
    "embeddings.cls_token": "cls_token",
    "embeddings.distillation_token": "dist_token",
    "embeddings.mask_token": "mask_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
    "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
    "layernorm.weight": "norm.weight",
    "layernorm.bias": "norm.bias",
}
_LAYER_NAMES = {
    "layernorm_before": "norm1",
    "attention.qkv": "attn.qkv",
    "attention.output.dense": "attn.proj",
    "attention.o_proj": "attn.proj",
    "layernorm_after": "norm2",
    "intermediate.dense": "mlp.fc1",
    "mlp.fc1": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "mlp.fc2": "mlp.fc2",
}
_HEAD_NAMES = {"classifier": "head", "cls_classifier": "head", "distillation_classifier": "head_dist"}


def map_names(state: State) -> State | None:
    """Name tensors as timm does; query, key and value become one tensor, in this order.

    Args:
        state: tensors by their names in the file.

    Returns:
        All tensors; those without a place in timm's models keep their names. None if the names are not those
        of transformers' ViT and DeiT, or two of them stand for one tensor.
    """
    if not any(_translate_model_name(name) for name in state):
        return None
    mapped: State = {}
    for name, tensor in _join_projections(state).items():
        translated = _translate_model_name(name) or _translate_head_name(name) or name
        if translated in mapped:
            return None
        mapped[translated] = tensor
    return mapped


def lacks_second_classifier(state: State) -> bool:
    """Return whether mapped weights have a distillation token that no classifier reads."""
    ends = {end for name in state for end in ("dist_token", "head_dist.weight") if name.endswith(end)}
    return ends == {"dist_token"}


def take_settings(model: Any, path: Path) -> tuple[str, ...]:
    """Compare a timm model with the `config.json` beside its weights, and take the norms' epsilon from it.

    Number of heads, activation and epsilon decide what a model computes, and no tensor tells them.

    Args:
        model: receives the epsilon.
        path: the weights file.

    Returns:
        What was compared, or assumed where there is no such file, in sentences.

    Raises:
        ExportError: the file is damaged, or is of a model with other heads or another activation.
    """
    layers = [module for module in model.modules() if isinstance(module, nn.LayerNorm)]
    heads, activation = model.blocks[0].attn.num_heads, model.blocks[0].mlp.act
    mapped = "names of Hugging Face's transformers were mapped to timm's, query, key and value joined"
    settings = read_settings(path.with_name(SETTINGS))
    if settings is None or "model_type" not in settings:  # timm writes a config.json of its own
        return (
            mapped,
            f"attention heads ({heads}), activation ({type(activation).__name__}) and the norms' epsilon "
            f"({layers[0].eps:g}) are those of timm's model, because no {SETTINGS} of transformers lies "
            "beside the weights; its own default for the epsilon is 1e-12",
        )
    theirs = settings.get("num_attention_heads"), settings.get("hidden_act")
    exact = isinstance(activation, nn.GELU) and activation.approximate == "none"
    ours = heads, "gelu" if exact else type(activation).__name__
    if theirs != ours or not exact:
        raise ExportError(
            f"{path.with_name(SETTINGS)} says {theirs[0]!r} attention heads and activation {theirs[1]!r}, "
            f"and this model has {ours[0]} and {ours[1]!r}; expected equal heads and gelu: give the model "
            "that the weights were made for with --model"
        )
    epsilon = settings.get("layer_norm_eps")
    if type(epsilon) is not float or not 0 < epsilon < math.inf:
        raise ExportError(
            f"{path.with_name(SETTINGS)}: expected a number above 0 for layer_norm_eps, found {epsilon!r}"
        )
    for layer in layers:
        layer.eps = epsilon
    return (
        mapped,
        f"{SETTINGS} beside the weights has the heads and activation of this model, and the norms' epsilon, "
        f"{epsilon:g}, was taken from it",
    )


def _join_projections(state: State) -> State:
    joined = dict(state)
    for name in state:
        match = _QUERY.fullmatch(name)
        if match is None or _translate_model_name(f"{match[1]}.qkv.{match[3]}") is None:
            continue
        names = [f"{match[1]}.{part}.{match[3]}" for part in (match[2], *_SIBLINGS[match[2]])]
        if all(part in state for part in names) and _are_alike([state[part] for part in names]):
            joined[f"{match[1]}.qkv.{match[3]}"] = torch.cat([joined.pop(part) for part in names])
    return joined


def _are_alike(tensors: list[Any]) -> bool:
    """Return whether tensors can be joined: equal shapes and types, and as long in memory as they claim."""
    first = tensors[0]
    return first.ndim > 0 and all(
        tensor.shape == first.shape and tensor.dtype == first.dtype and holds_its_values(tensor)
        for tensor in tensors
    )


def _translate_model_name(name: str) -> str | None:
    match = _MODEL.fullmatch(name)
    if match is None:
        return None
    outer, inner = match[1], match[2]
    if layer := _LAYER.fullmatch(inner):
        place = _LAYER_NAMES.get(layer[2])
        return place and f"{outer}blocks.{layer[1]}.{place}.{layer[3]}"
    place = _NAMES.get(inner)
    return place and f"{outer}{place}"


def _translate_head_name(name: str) -> str | None:
    match = _HEAD.fullmatch(name)
    return match and f"{match[1]}{_HEAD_NAMES[match[2]]}.{match[3]}"
