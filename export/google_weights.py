"""Google's weights of vision transformers in `.npz` files, which timm's own loader reads."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer

from ..engine.errors import ExportError, reason
from .weights_fit import count_pixels, describe_resampling

_POSITIONS = ("pos_embedding", "Transformer/posembed_input/pos_embedding")
_PREFIXES = ("opt/target/", "params/img/", "params/", "")

Shapes = dict[str, tuple[int, ...]]


def load_google_weights(model: Any, path: Path, *, resample: bool) -> tuple[str, ...]:
    """Load a file into a model in place, through timm, and check that everything in it was used.

    Args:
        model: receives the weights.
        path: an `.npz` file of Google's code.
        resample: resample position embeddings of another image size, as timm does.

    Returns:
        What was changed, in sentences.

    Raises:
        ExportError: the file cannot be read, or is not of this model.
    """
    if not isinstance(model, VisionTransformer):
        raise ExportError(f"{path} is an .npz file, which only vision transformers are read from")
    shapes = _read_shapes(path)
    notes = _check_positions(model, path, shapes, resample)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(torch.nan)  # shows afterwards what the file did not fill
        try:
            model.load_pretrained(str(path))
        except Exception as error:  # other shapes and missing arrays make it raise many kinds
            raise ExportError(
                f"{path} does not hold the weights of this model, in the layout of Google's files: "
                f"{reason(error)}; give the model it was made for with --model and --num-classes"
            ) from error
    _check_use(model, path, shapes)
    return notes


def _read_shapes(path: Path) -> Shapes:
    """Return the shapes of the model's arrays, without those of an optimiser or of other models."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            prefix = next(start for start in _PREFIXES if f"{start}embedding/kernel" in arrays)
            return {name: arrays[name].shape for name in arrays if name.startswith(prefix)}
    except StopIteration:
        raise ExportError(
            f"{path} has no array embedding/kernel: .npz files are read in the layout of Google's vision "
            "transformers only"
        ) from None
    except Exception as error:  # damaged archives make NumPy raise nearly anything
        raise ExportError(f"{path} cannot be read as an .npz file of weights: {reason(error)}") from error


def _check_positions(model: Any, path: Path, shapes: Shapes, resample: bool) -> tuple[str, ...]:
    name = next((name for name in shapes if name.endswith(_POSITIONS)), None)
    if name is None or shapes[name] == tuple(model.pos_embed.shape):
        return ()
    if len(shapes[name]) != model.pos_embed.ndim:
        raise ExportError(
            f"{path}: expected position embeddings of {model.pos_embed.ndim} axes, found shape "
            f"{list(shapes[name])}; give a file of Google's vision transformers"
        )
    old, (new, _) = count_pixels(model, shapes[name][-2]), model.patch_embed.img_size
    if not resample:
        raise ExportError(
            f"{path} was made for images of {old} × {old} pixels: give --image-size {old} for such images, "
            f"or --image-size {new} to resample its position embeddings for images of {new} × {new}"
        )
    return (describe_resampling(old, new),)


def _check_use(model: Any, path: Path, shapes: Shapes) -> None:
    """Refuse a file that leaves something empty, or of which timm left something out without a word."""
    unfilled = [name for name, parameter in model.named_parameters() if parameter.isnan().any()]
    if unfilled:
        raise ExportError(
            f"{path} does not fill {', '.join(unfilled[:5])}{', …' if len(unfilled) > 5 else ''} of this "
            "model, or not with numbers; give --num-classes as the file has it, and the model it was made for"
        )
    in_file = sum(math.prod(shape) for name, shape in shapes.items() if not name.endswith(_POSITIONS))
    in_model = sum(value.numel() for name, value in model.named_parameters() if name != "pos_embed")
    if in_file != in_model:
        raise ExportError(
            f"{path} has {in_file:,} weights beside position embeddings and this model {in_model:,}: it has "
            "other blocks, patches or layers (such as pre_logits); give the model it was made for with "
            "--model"
        )
