"""Contexts that were learnt elsewhere: the vectors in front of every class name, in NumPy's format."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..engine.errors import InputError
from ..engine.files import from_npz
from ..engine.model import FloatArray

# In the order in which they are looked for: fozo's, and CoOp's as in its module and in a checkpoint of it.
NAMES = ("context", "ctx", "prompt_learner.ctx")


def read_context(path: Path) -> FloatArray:
    """Return the context of an uncompressed `.npz` file, float32 `[M, D]`.

    Raises:
        InputError: the file cannot be read, or has no such context.
    """
    try:
        arrays = from_npz(path)
    except ValueError as error:
        raise InputError(
            f"cannot read the context {path}: {error}; expected an .npz file of numpy.savez with ctx [M, D]"
        ) from error
    return choose_context(arrays, path)


def choose_context(arrays: Mapping[str, NDArray[Any]], path: Path) -> FloatArray:
    """Return the context among the arrays of a file, float32 `[M, D]`.

    Args:
        arrays: by name.
        path: the file, for messages.

    Raises:
        InputError: there is none, or it is one for each class, or not of finite numbers.
    """
    name = next((name for name in NAMES if name in arrays), None)
    if name is None:
        raise InputError(
            f"expected an array {' or '.join(NAMES)} in {path}, found {', '.join(list(arrays)[:9]) or 'none'}"
        )
    array = arrays[name]
    if array.ndim == 3:
        raise InputError(
            f"expected one context [M, D] for all classes in {path}, found {name} of shape "
            f"{list(array.shape)}, one for each class; train it with shared vectors (in CoOp, without CSC)"
        )
    if array.ndim != 2 or not array.size or array.dtype.kind != "f":
        raise InputError(
            f"expected floats [M, D] in {path}, found {name} of {array.dtype} and shape {list(array.shape)}"
        )
    context = array.astype(np.float32)
    if not np.isfinite(context).all():
        raise InputError(f"expected finite numbers in {name} of {path}, found others")
    return context
