"""An adapter's state on disk: one `.npz` without pickle, written atomically, resumed bit for bit."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Mapping
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from .arrays import from_npz, to_npz
from .errors import StateError
from .files import write_atomic
from .methods.base import State
from .model import ModelInfo

SCHEMA = 1
StateT = TypeVar("StateT", bound=State)


def save(path: Path, header: Mapping[str, Any], state: State) -> None:
    """Writes a state; fields that are None are left out.

    Args:
        path: the file.
        header: JSON values that must agree when the state is loaded (`load`), such as the bundle's hash.
        state: any method's state.

    Raises:
        OutputError: the file cannot be written; an older one is left as it was.
    """
    text = json.dumps({"schema": SCHEMA, **header})
    values = {
        f.name: np.asarray(value) for f in fields(state) if (value := getattr(state, f.name)) is not None
    }
    write_atomic(path, to_npz(header=np.frombuffer(text.encode(), np.uint8), **values))


def load(
    path: Path, header: Mapping[str, Any], like: StateT, info: ModelInfo
) -> tuple[StateT, dict[str, Any]]:
    """Reads a state, and returns it with its whole header.

    Args:
        path: the file.
        header: what its header must say; keys it has beside these are ignored.
        like: the initial state of the same method on the same bundle: gives the fields, types and shapes.
        info: the model, for the shapes of arrays that are None at first (`State` says how).

    Raises:
        StateError: the file is missing, damaged, or belongs to another bundle, method or set of options.
    """
    try:
        arrays = from_npz(path)
        found = json.loads(arrays.pop("header").tobytes())
    except (ValueError, KeyError, RecursionError) as error:
        raise StateError(
            f"{path} is not a readable checkpoint ({error}); start anew, or use another one"
        ) from error
    for key, expected in {"schema": SCHEMA, **header}.items():
        if not isinstance(found, dict) or found.get(key) != expected:
            value = found.get(key) if isinstance(found, dict) else found
            if isinstance(expected, dict) and isinstance(value, dict):  # options: name only what differs
                names = [name for name in {**expected, **value} if expected.get(name) != value.get(name)]
                expected, value = ({name: each.get(name) for name in names} for each in (expected, value))
            raise StateError(
                f"{path} does not fit: expected {key} {expected!r}, found {value!r}; "
                "open the bundle and method that wrote it, or start anew"
            )
    hints = typing.get_type_hints(type(like))
    values = {f.name: _restore(path, f, hints[f.name], arrays.get(f.name), like, info) for f in fields(like)}
    return type(like)(**values), found


def _restore(
    path: Path, f: Field[Any], hint: Any, stored: NDArray[Any] | None, like: State, info: ModelInfo
) -> Any:
    kinds = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    if stored is None and type(None) in kinds:
        return None
    scalar, initial = int in kinds or float in kinds, getattr(like, f.name)
    if initial is not None:
        shape, dtype = np.shape(initial), np.asarray(initial).dtype
    else:
        shape = tuple(getattr(info, name) for name in f.metadata.get("axes", ()))
        dtype = np.dtype(np.float64)
    if stored is None or (stored.shape, stored.dtype) != (shape, dtype) or not np.isfinite(stored).all():
        found = "nothing" if stored is None else f"{stored.dtype} of shape {list(stored.shape)}"
        raise StateError(
            f"{path}: field {f.name} does not fit, expected finite {dtype} of shape {list(shape)}, "
            f"found {found}; start anew, or use another checkpoint"
        )
    return stored.item() if scalar else stored
