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

from ..arrays import from_npz, to_npz
from ..errors import StateError
from ..files import write_atomic
from ..interface.method import State
from ..model import ModelInfo

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
    write_atomic(path, to_npz(header=np.frombuffer(text.encode(), np.uint8), **arrays_of(state)))


def arrays_of(state: State, prefix: str = "") -> dict[str, NDArray[Any]]:
    """Every value of a state that is not None, by name.

    Those of a state inside it as `name.inner`, of several states as `name.0.inner` and so on.
    """
    values: dict[str, NDArray[Any]] = {}
    for f in fields(state):
        value = getattr(state, f.name)
        if isinstance(value, State):
            values.update(arrays_of(value, f"{prefix}{f.name}."))
        elif isinstance(value, tuple):
            for place, each in enumerate(value):
                values.update(arrays_of(each, f"{prefix}{f.name}.{place}."))
        elif value is not None:
            values[prefix + f.name] = np.asarray(value)
    return values


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
    return restored(path, "", arrays, like, info), found


def restored(
    path: Path, prefix: str, arrays: Mapping[str, NDArray[Any]], like: StateT, info: ModelInfo
) -> StateT:
    """A state from what `arrays_of` made of it under the same prefix.

    Args:
        path: where the arrays come from, for messages.
        prefix: of their names.
        arrays: by name.
        like: the initial state of the same method on the same bundle.
        info: the model.

    Raises:
        StateError: an array is missing, or not of the type and shape that it should have.
    """
    hints = typing.get_type_hints(type(like))
    values: dict[str, Any] = {}
    for f in fields(like):
        name, initial = prefix + f.name, getattr(like, f.name)
        if isinstance(initial, State):
            values[f.name] = restored(path, f"{name}.", arrays, initial, info)
        elif isinstance(initial, tuple):
            count, like_each = len(values[f.metadata["each_of"]]), getattr(like, f.metadata["like"])
            if any(each.startswith(f"{name}.{count}.") for each in arrays):
                raise StateError(
                    f"{path}: there are more states {name} than {prefix}{f.metadata['each_of']} has entries, "
                    f"{count}; start anew, or use another checkpoint"
                )
            values[f.name] = tuple(
                restored(path, f"{name}.{place}.", arrays, like_each, info) for place in range(count)
            )
        else:
            values[f.name] = _restore(path, name, f, hints[f.name], arrays.get(name), initial, info)
    return type(like)(**values)


def _restore(
    path: Path,
    name: str,
    f: Field[Any],
    hint: Any,
    stored: NDArray[Any] | None,
    initial: Any,
    info: ModelInfo,
) -> Any:
    kinds = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    if stored is None and type(None) in kinds:
        return None
    scalar, free = int in kinds or float in kinds, f.metadata.get("free", 0)
    if initial is not None:
        shape, dtype = np.shape(initial), np.asarray(initial).dtype
    else:
        shape = tuple(getattr(info, axis) for axis in f.metadata.get("axes", ()))
        dtype = np.dtype(np.float64)
    fits = (
        stored is not None
        and (stored.ndim, stored.shape[free:], stored.dtype) == (len(shape), shape[free:], dtype)
        and np.isfinite(stored).all()
    )
    if stored is None or not fits:
        found = "nothing" if stored is None else f"{stored.dtype} of shape {list(stored.shape)}"
        raise StateError(
            f"{path}: field {name} does not fit, expected finite {dtype} of shape "
            f"{['any'] * free + list(shape[free:])}, found {found}; start anew, or use another checkpoint"
        )
    return stored.item() if scalar else stored
