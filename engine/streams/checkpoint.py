"""A state on disk: one `.npz` without pickle, written atomically, resumed bit for bit."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import StateError
from ..files import from_npz, to_npz, write_atomic
from ..interface.method import iterate_values, list_fields
from ..model import ModelInfo
from ..ordinary_files import parse_json

SCHEMA = 2
RecordT = TypeVar("RecordT")


def save(path: Path, header: Mapping[str, Any], state: Any) -> None:
    """Write a state; values that are None are left out.

    Args:
        path: the file.
        header: JSON values that must agree when the state is loaded (`load`), such as the bundle's hash.
        state: a dataclass of numbers, arrays, and further dataclasses, named tuples and lists of states.

    Raises:
        OutputError: the file cannot be written; an older one is left as it was.
    """
    text = json.dumps({"schema": SCHEMA, **header})
    write_atomic(path, to_npz(header=np.frombuffer(text.encode(), np.uint8), **flatten(state)))


def flatten(state: Any, prefix: str = "") -> dict[str, NDArray[Any]]:
    """Return every value of a state that is not None, by name, as an array.

    Args:
        state: as for `save`.
        prefix: of all names.
    """
    return {name: np.asarray(value) for name, value in iterate_values(state, prefix) if value is not None}


def load(path: Path, header: Mapping[str, Any], template: RecordT, model: ModelInfo) -> RecordT:
    """Read a state.

    Args:
        path: the file.
        header: expected entries of its header; other entries are ignored.
        template: the initial state of the same method on the same bundle: gives fields, types and shapes.
        model: for the shapes of arrays that are None at first (`optional_array`).

    Raises:
        StateError: the file is missing, damaged, or belongs to another bundle, method or set of options.
    """
    try:
        arrays = from_npz(path)
        stored_header = parse_json(arrays.pop("header").tobytes())
    except (ValueError, KeyError) as error:
        raise StateError(
            f"{path} is not a readable checkpoint ({error}); start anew, or use another one"
        ) from error
    _check_header(path, stored_header, {"schema": SCHEMA, **header})
    return unflatten(path, arrays, template, model)


def unflatten(
    path: Path, arrays: Mapping[str, NDArray[Any]], template: RecordT, model: ModelInfo, prefix: str = ""
) -> RecordT:
    """Return a state from the arrays that `flatten` made of it.

    Args:
        path: source of the arrays, for messages.
        arrays: by name.
        template: the initial state of the same method on the same bundle.
        model: the model.
        prefix: of the names.

    Raises:
        StateError: an array is missing, or not of the expected type and shape.
    """
    return _Reader(path, arrays, model).read_record(template, prefix)


def _check_header(path: Path, stored: Any, expected_header: Mapping[str, Any]) -> None:
    for key, expected in expected_header.items():
        value = stored.get(key) if isinstance(stored, dict) else stored
        if isinstance(stored, dict) and (value == expected or key == "precision"):
            continue  # two precisions may be one graph: the identity decides, and the precision explains
        if key == "identity" and isinstance(stored, dict) and value is not None:
            raise StateError(f"{path} {_describe_other_model(stored, expected_header)}")
        if key == "schema" and value == 1:
            raise StateError(
                f"{path} was written by an older version of fozo (schema 1, now {SCHEMA}) and cannot be "
                "continued; remove it and start again"
            )
        if isinstance(expected, dict) and isinstance(value, dict):  # options: name only what differs
            names = [name for name in {**expected, **value} if expected.get(name) != value.get(name)]
            expected, value = ({name: side.get(name) for name in names} for side in (expected, value))
        raise StateError(
            f"{path} does not fit: expected {key} {expected!r}, actual {value!r}; "
            "open the bundle and method that wrote it, or start anew"
        )


def _describe_other_model(stored: Mapping[str, Any], expected_header: Mapping[str, Any]) -> str:
    """Explain why the identity of the model is another one."""
    then, now = stored.get("precision"), expected_header.get("precision")
    if then and now and then != now:
        return (
            f"is the state of a stream in the precision {then}, and this one runs {now}; open the {then} "
            "graph (--precision), or start anew"
        )
    return (
        "belongs to another model: another bundle, precision, choice of classes, or other source statistics; "
        "open the one that wrote it, or start anew"
    )


@dataclass(frozen=True)
class _Reader:
    """Reads records from arrays.

    Attributes:
        path: source of the arrays, for messages.
        arrays: by name.
        model: the model, for the axes of optional arrays.
    """

    path: Path
    arrays: Mapping[str, NDArray[Any]]
    model: ModelInfo

    def read_record(self, template: RecordT, prefix: str) -> RecordT:
        """Return a record of the type and shapes of `template`."""
        hints = typing.get_type_hints(type(template))
        metadata: dict[str, Mapping[str, Any]] = (
            {f.name: f.metadata for f in fields(template)} if is_dataclass(template) else {}
        )
        values: dict[str, Any] = {}
        for name in list_fields(template) or ():
            initial, options = getattr(template, name), metadata.get(name, {})
            if list_fields(initial) is not None:
                values[name] = self.read_record(initial, f"{prefix}{name}.")
            elif isinstance(initial, tuple):
                count = len(values[options["parallel_to"]])
                entry = getattr(template, options["template"])
                parallel_to = prefix + options["parallel_to"]
                values[name] = self._read_list(entry, count, prefix + name, parallel_to)
            else:
                values[name] = self._read_value(prefix + name, hints[name], initial, options)
        return type(template)(**values)

    def _read_list(self, template: Any, count: int, name: str, parallel_to: str) -> tuple[Any, ...]:
        if any(stored.startswith(f"{name}.{count}.") for stored in self.arrays):
            raise StateError(
                f"{self.path}: there are more states {name} than {parallel_to} has entries, {count}; "
                "start anew, or use another checkpoint"
            )
        return tuple(self.read_record(template, f"{name}.{index}.") for index in range(count))

    def _read_value(self, name: str, hint: Any, initial: Any, options: Mapping[str, Any]) -> Any:
        """Return a number or an array, checked against type hint, initial value and declaration."""
        union = typing.get_origin(hint) in (typing.Union, types.UnionType)
        kinds = typing.get_args(hint) if union else (hint,)
        stored = self.arrays.get(name)
        if stored is None and type(None) in kinds:
            return None
        variable_axes = options.get("variable_axes", 0)
        if initial is not None:
            shape, dtype = np.shape(initial), np.asarray(initial).dtype
        else:
            shape = tuple(getattr(self.model, axis) for axis in options.get("axes", ()))
            dtype = np.dtype(np.float64)
        fixed = shape[variable_axes:]
        fits = (
            stored is not None
            and (stored.ndim, stored.shape[variable_axes:], stored.dtype) == (len(shape), fixed, dtype)
            and np.isfinite(stored).all()
        )
        if stored is None or not fits:
            actual = "nothing" if stored is None else f"{stored.dtype} of shape {list(stored.shape)}"
            raise StateError(
                f"{self.path}: field {name} does not fit, expected finite {dtype} of shape "
                f"{['any'] * variable_axes + list(fixed)}, actual {actual}; start anew, or use another "
                "checkpoint"
            )
        return stored.item() if {int, float, bool} & set(kinds) else stored
