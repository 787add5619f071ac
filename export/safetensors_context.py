"""Contexts that were learnt elsewhere, in files of the package safetensors."""

from __future__ import annotations

from pathlib import Path

from ..data.context_file import choose_context
from ..engine.errors import InputError, reason
from ..engine.model import FloatArray
from ..engine.ordinary_files import read_limited

_MAX_BYTES = 1 << 26


def read_safetensors_context(path: Path) -> FloatArray:
    """Return the context of a file, float32 `[M, D]`.

    Raises:
        InputError: safetensors is not installed, or the file cannot be read or has no such context.
    """
    try:
        from safetensors.numpy import load
    except ImportError as error:
        raise InputError(
            f"reading {path} needs the package safetensors: pip install safetensors, or use numpy.savez"
        ) from error
    try:
        arrays = load(read_limited(path, _MAX_BYTES))
    except Exception as error:  # safetensors raises many kinds on damaged files
        raise InputError(f"cannot read the context {path}: {reason(error)}") from error
    return choose_context(arrays, path)
