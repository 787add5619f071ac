"""open_clip's configurations of CLIP models by name, and the reasons why some cannot be exported."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP

from ..engine.errors import ExportError
from .clip_activation import SETTINGS_FILE
from .hugging_face_file import read_settings
from .image_graphs import MAX_GRAPH_BYTES
from .open_clip_blocks import require

_TOWERS = ("vision_cfg", "text_cfg")


def find_configuration(name: str) -> dict[str, Any]:
    """Return open_clip's configuration of a model.

    Raises:
        ExportError: open_clip has no such model, or one that cannot be exported.
    """
    if name not in open_clip.list_models():  # names of places would be looked up in the network
        similar = difflib.get_close_matches(name, open_clip.list_models(), 5)
        hint = f"did you mean {', '.join(similar)}?" if similar else "open_clip.list_models() lists all"
        raise ExportError(f"open_clip {open_clip.__version__} has no model {name!r}; {hint}")
    configuration: dict[str, Any] = open_clip.get_model_config(name)
    check_configuration(configuration)
    return configuration


def check_configuration(configuration: Mapping[str, Any]) -> None:
    """Refuse models whose parts are not open_clip's own; the towers are checked when they are read.

    Raises:
        ExportError: it is such a model.
    """
    image, text = (configuration.get(key, {}) for key in _TOWERS)
    require(
        "multimodal_cfg" not in configuration, "is a CoCa model, which pools its image tokens by attention"
    )
    require(
        not text.get("hf_model_name"),
        f"takes its text tower, {text.get('hf_model_name')}, from Hugging Face's transformers",
    )
    require(
        not image.get("timm_model_name"),
        f"takes its image tower, {image.get('timm_model_name')}, from timm",
    )
    require(isinstance(image.get("layers", 0), int), "has a ModifiedResNet as image tower")
    require(
        configuration.get("init_logit_bias") is None,
        "adds a bias to its logits, as SigLIP does: its scores are of single pairs, not of classes",
    )
    require(
        not text.get("hf_tokenizer_name") and not text.get("tokenizer_kwargs"),
        "has another tokenizer than CLIP's",
    )


def create_clip(configuration: Mapping[str, Any], activation: str) -> Any:
    """Create a model in eval mode with random weights, the same in every call.

    Args:
        configuration: of `find_configuration`.
        activation: `gelu` or `quick_gelu`.

    Raises:
        ExportError: one of its graphs would not fit into a file.
    """
    options = dict(configuration)
    kind = CustomTextCLIP if options.pop("custom_text", False) else CLIP
    options["quick_gelu"] = activation == "quick_gelu"
    with torch.device("meta"):
        _check_size(kind(**options))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind(**options).eval()


def _check_size(model: Any) -> None:
    sizes = {"image": 0, "text": 0}
    for name, parameter in model.named_parameters():
        sizes["image" if name.startswith("visual.") else "text"] += 4 * parameter.numel()
    for tower, size in sizes.items():
        if size > MAX_GRAPH_BYTES:
            raise ExportError(
                f"the weights of the {tower} tower have {size / 2**30:.1f} GiB; an ONNX file holds less than "
                "2 GiB, and bundles do not use external data: choose a smaller model"
            )


def read_clip_settings(weights: Path | None, configuration: Mapping[str, Any]) -> dict[str, Any] | None:
    """Read the file of settings that open_clip writes beside weights; None if there is none.

    Args:
        weights: the file of weights.
        configuration: of the model that the export asks for.

    Raises:
        ExportError: it cannot be used, or is of another model.
    """
    if weights is None:
        return None
    path = weights.parent / SETTINGS_FILE
    settings = read_settings(path)
    if settings is None:
        return None
    described = settings.get("model_cfg")
    if not isinstance(described, dict) or _describe(described) != _describe(configuration):
        raise ExportError(
            f"{path}, which lies beside the weights, describes another model than --clip; name the model of "
            "the weights, or move the file away"
        )
    if type(described.get("quick_gelu", False)) is not bool:
        raise ExportError(
            f"{path}: expected true or false as quick_gelu, found {described['quick_gelu']!r}; mend it"
        )
    return settings


def _describe(configuration: Mapping[str, Any]) -> Any:
    """Return what a configuration says of the sizes of a model, with open_clip's defaults."""
    try:
        towers = CLIPVisionCfg(**configuration["vision_cfg"]), CLIPTextCfg(**configuration["text_cfg"])
    except (KeyError, TypeError):
        return None
    return configuration.get("embed_dim"), *towers
