"""Loading of weights files, safetensors or PyTorch state dicts, into timm models; every key must fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from ..engine.errors import ExportError, reason

_MAX_LISTED_KEYS = 8


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a file into a model in place.

    Args:
        model: receives the weights.
        path: `.safetensors`, or anything that `torch.load(weights_only=True)` reads; a dictionary with an
            entry `state_dict` or `model` is unwrapped.

    Raises:
        ExportError: the file cannot be read, or its keys or shapes are not those of the model.
    """
    state = _read_state(path)
    expected = model.state_dict()
    problems = [
        _list_keys("missing", sorted(expected.keys() - state.keys())),
        _list_keys("unexpected", sorted(state.keys() - expected.keys())),
        _list_keys(
            "of another shape",
            [
                f"{key} {list(state[key].shape)} instead of {list(expected[key].shape)}"
                for key in sorted(expected.keys() & state.keys())
                if state[key].shape != expected[key].shape
            ],
        ),
    ]
    if any(problems):
        raise ExportError(
            f"{path} does not hold the weights of this model: {'; '.join(filter(None, problems))}; "
            "give the model it was made for with --model, --num-classes and --image-size"
        )
    model.load_state_dict(state)


def _list_keys(label: str, keys: list[str]) -> str:
    more = f" and {len(keys) - _MAX_LISTED_KEYS} more" if len(keys) > _MAX_LISTED_KEYS else ""
    return f"{len(keys)} {label} ({', '.join(keys[:_MAX_LISTED_KEYS])}{more})" if keys else ""


def _read_state(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ExportError(f"there is no weights file {path}")
    kind = "safetensors" if path.suffix == ".safetensors" else "a state dict"
    try:
        state = (
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
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in state.items()
    ):
        raise ExportError(f"{path} holds no state dict: expected a dictionary of named tensors")
    return state
