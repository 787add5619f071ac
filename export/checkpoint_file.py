"""State dicts of a file: safetensors, or what PyTorch saved, training checkpoints included."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from ..engine.errors import ExportError, reason

State = dict[str, Any]  # tensors by name

_DEPTH = 3  # of dictionaries in dictionaries


def read_states(path: Path) -> dict[str, State]:
    """Read all state dicts of a file.

    Besides tensors, a file may hold numbers, texts, lists, dictionaries and the options of a training script
    (`argparse.Namespace`); anything else is refused, because reading it would run code.

    Args:
        path: `.safetensors`, or anything that `torch.load(weights_only=True)` reads.

    Returns:
        State dicts by the names of the dictionaries that lead to them, joined by dots; the name is empty if
        the file itself is one.

    Raises:
        ExportError: the file cannot be read, or holds no state dict.
    """
    if not path.is_file():
        raise ExportError(f"there is no weights file {path}")
    kind = "safetensors" if path.suffix == ".safetensors" else "a state dict"
    try:
        content = load_file(path) if kind == "safetensors" else _load(path)
    except Exception as error:  # damaged files make both libraries raise nearly anything
        raise ExportError(
            f"{path} cannot be read as {kind}: {reason(error)}; "
            "only safetensors and plain state dicts are loaded"
        ) from error
    states = dict(_list_states(content, "", _DEPTH))
    if not states:
        raise ExportError(f"{path} holds no state dict: expected a dictionary of named tensors")
    return states


def _load(path: Path) -> Any:
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(path, map_location="cpu", weights_only=True)


def _list_states(content: Any, name: str, depth: int) -> Iterator[tuple[str, State]]:
    if not isinstance(content, dict) or not content or not all(isinstance(key, str) for key in content):
        return
    if all(isinstance(value, torch.Tensor) for value in content.values()):
        yield name, dict(content)
        return
    for key, value in content.items() if depth else ():
        yield from _list_states(value, f"{name}.{key}" if name else key, depth - 1)
