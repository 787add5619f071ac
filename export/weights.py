"""Weights from a file into a timm model: safetensors or a PyTorch state dict, every key accounted for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from ..engine.errors import ExportError, reason

_LISTED = 8


def load_weights(model: nn.Module, path: Path) -> None:
    """Loads a file into a model in place.

    Args:
        model: the model.
        path: `.safetensors`, or anything that `torch.load(weights_only=True)` reads; a dictionary with an
            entry `state_dict` or `model` is unwrapped.

    Raises:
        ExportError: the file cannot be read, or its keys or shapes are not those of the model.
    """
    found = _read(path)
    expected = model.state_dict()
    problems = [
        _listing("missing", sorted(expected.keys() - found.keys())),
        _listing("unexpected", sorted(found.keys() - expected.keys())),
        _listing(
            "of another shape",
            [
                f"{key} {list(found[key].shape)} instead of {list(expected[key].shape)}"
                for key in sorted(expected.keys() & found.keys())
                if found[key].shape != expected[key].shape
            ],
        ),
    ]
    if any(problems):
        raise ExportError(
            f"{path} does not hold the weights of this model: {'; '.join(filter(None, problems))}; "
            "give the model it was made for with --model, --num-classes and --image-size"
        )
    model.load_state_dict(found)


def _listing(label: str, keys: list[str]) -> str:
    more = f" and {len(keys) - _LISTED} more" if len(keys) > _LISTED else ""
    return f"{len(keys)} {label} ({', '.join(keys[:_LISTED])}{more})" if keys else ""


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ExportError(f"there is no weights file {path}")
    kind = "safetensors" if path.suffix == ".safetensors" else "a state dict"
    try:
        found = (
            load_file(path)
            if kind == "safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except Exception as error:  # damaged files make both libraries raise nearly anything
        raise ExportError(
            f"{path} cannot be read as {kind}: {reason(error)}; "
            "only safetensors and plain state dicts are loaded"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in found.items()
    ):
        raise ExportError(f"{path} holds no state dict: expected a dictionary of named tensors")
    return found
