"""State dicts of a file: safetensors, or what PyTorch saved, training checkpoints included."""

from __future__ import annotations

import argparse
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from ..engine.errors import ExportError, reason

State = dict[str, Any]  # tensors by name

_READ = "Reading it would run code of the file. If you trust it, write its weights alone in Python: "
_TORCHSCRIPT = (
    f"a TorchScript archive, a program with weights. {_READ}"
    "torch.save(torch.jit.load(FILE, map_location='cpu').state_dict(), 'weights.pt')"
)
_LIGHTNING = (
    f"a checkpoint of Lightning that holds objects besides tensors. {_READ}"
    "torch.save(torch.load(FILE, map_location='cpu', weights_only=False)['state_dict'], 'weights.pt')"
)
_PICKLED = (
    f"a pickled whole model, or has other objects beside tensors. {_READ}"
    "torch.save(WEIGHTS, 'weights.pt'), where WEIGHTS is .state_dict() or ['state_dict'] of "
    "torch.load(FILE, map_location='cpu', weights_only=False)"
)
_MAX_EXPANSION = 8
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
    program = _name_program(path)
    if program == _TORCHSCRIPT:  # PyTorch would run it before it refuses it
        raise ExportError(f"{path} cannot be read as a state dict; it is {program}")
    kind = "safetensors" if path.suffix == ".safetensors" else "a state dict"
    try:
        content = load_file(path) if kind == "safetensors" else _load(path)
    except Exception as error:  # damaged files make both libraries raise nearly anything
        if program is not None:
            raise ExportError(f"{path} cannot be read as a state dict; it is {program}") from error
        raise ExportError(
            f"{path} cannot be read as {kind}: {reason(error)}; "
            "only safetensors and plain state dicts are loaded"
        ) from error
    states = dict(_list_states(content, "", _DEPTH))
    if not states:
        raise ExportError(f"{path} holds no state dict: expected a dictionary of named tensors")
    return states


def check_archive(path: Path) -> None:
    """Refuse an archive that would fill the memory; weights do not shrink much when they are compressed.

    Raises:
        ExportError: it unpacks to many times its size.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except Exception:  # damaged archives make zipfile raise nearly anything
        return
    size = path.stat().st_size
    if unpacked > _MAX_EXPANSION * size:
        raise ExportError(
            f"{path} has {size:,} bytes and would unpack to {unpacked:,}, expected weights, which are stored "
            "without compression; save them again"
        )


def holds_its_values(tensor: Any) -> bool:
    """Return whether a tensor is as long in memory as it claims; a file can declare more than it holds."""
    strided: bool = tensor.layout == torch.strided
    return strided and tensor.untyped_storage().nbytes() >= tensor.nbytes


def is_torchscript(path: Path) -> bool:
    """Return whether a file is a TorchScript archive, a program with weights."""
    return _name_program(path) == _TORCHSCRIPT


def _load(path: Path) -> Any:
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(path, map_location="cpu", weights_only=True)


def _name_program(path: Path) -> str | None:
    """Return the kind of a file that may hold programs, with advice; None for others."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.partition("/")[2] for name in archive.namelist()}
            pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            content = archive.read(pickles[0]) if pickles else b""
    except Exception:  # damaged archives make zipfile raise nearly anything
        return None
    if any(name.startswith("code/") for name in names):
        return _TORCHSCRIPT
    if b"pytorch-lightning_version" in content:
        return _LIGHTNING
    return _PICKLED if content else None


def _list_states(content: Any, name: str, depth: int) -> Iterator[tuple[str, State]]:
    if not isinstance(content, dict) or not content or not all(isinstance(key, str) for key in content):
        return
    if all(isinstance(value, torch.Tensor) for value in content.values()):
        yield name, dict(content)
        return
    for key, value in content.items() if depth else ():
        yield from _list_states(value, f"{name}.{key}" if name else key, depth - 1)
