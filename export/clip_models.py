"""Refusal of what looks like a classifier and is not: image towers of CLIP, and weights for QuickGELU."""

from __future__ import annotations

from typing import Any

import timm
from timm.layers import QuickGELU

from ..engine.errors import ExportError

# Widths of CLIP's embeddings, which timm gives as the number of classes of image towers.
_EMBEDDING_WIDTHS = (512, 640, 768, 1024, 1280)
_FINE_TUNED = "_ft_"


def check_classifier(name: str, model: Any) -> None:
    """Refuse an image tower of CLIP, whose outputs are no classes.

    Args:
        name: name of the model, for messages.
        model: the PyTorch model with its weights.

    Raises:
        ExportError: its outputs are an embedding that is compared with texts.
    """
    config = model.pretrained_cfg
    tower = config.get("num_classes") in _EMBEDDING_WIDTHS and _FINE_TUNED not in str(config.get("tag"))
    bias = getattr(getattr(model, "head", None), "bias", None)
    # timm gives towers, whose projection has no bias, one of zeros; training a classifier changes it.
    embeds = tower and model.num_classes == config["num_classes"]
    if _is_clip(config) and (embeds or (bias is not None and not bias.any())):
        raise ExportError(
            f"{name} with these weights is an image tower of CLIP: its {model.num_classes} outputs are an "
            "embedding to compare with texts, not classes; export the whole model with --clip NAME "
            "--weights FILE, choose weights with a classifier, such as timm's that end in _ft_in1k, or name "
            "the classes with --classes FILE if they are some after all"
        )


def check_activation(name: str, model: Any) -> None:
    """Refuse timm's own weights for QuickGELU in a model with GELU.

    Raises:
        ExportError: the weights are such; the message names the model they belong to.
    """
    config = model.pretrained_cfg
    if any("QuickGELU" in note for note in config.get("notes") or ()) and not _has_quick_gelu(model):
        tag = f".{config['tag']}" if config.get("tag") else ""
        raise ExportError(
            f"the weights of {name} were trained with QuickGELU, and this model computes GELU; export "
            f"--model {_name_twin(config)}{tag}"
        )


def describe_activation(model: Any) -> str | None:
    """Return a note for weights of a file in a CLIP model with GELU, as they do not tell; None elsewhere."""
    config = model.pretrained_cfg
    twin = _name_twin(config)
    if not _is_clip(config) or _has_quick_gelu(model) or not timm.is_model(twin):
        return None
    return (
        f"the file does not tell with which activation it was trained, and this model computes GELU. Weights "
        f"that were trained with QuickGELU (OpenAI's, MetaCLIP's, DFN's) belong to --model {twin}"
    )


def _is_clip(config: Any) -> bool:
    return "_clip_" in str(config.get("architecture"))


def _has_quick_gelu(model: Any) -> bool:
    return any(isinstance(module, QuickGELU) for module in model.modules())


def _name_twin(config: Any) -> str:
    return str(config.get("architecture")).replace("_clip_", "_clip_quickgelu_")
