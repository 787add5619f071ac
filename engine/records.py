"""Records: frozen dataclasses read from JSON data and written back, with errors that name the field."""

from __future__ import annotations

import dataclasses
import functools
import math
import reprlib
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")

_TYPE_NAMES: dict[object, str] = {
    str: "a text",
    int: "an integer",
    float: "a finite number",
    bool: "true or false",
    Path: "a path",
    type(None): "null",
}


class RecordError(ValueError):
    """Data that does not fit a record; the message names file, field, expectation and value."""


def load_record(cls: type[T], value: object, where: str | Path) -> T:
    """Build a dataclass from JSON data, as `json.loads` returns it.

    Fields may be `str`, `int`, `float`, `bool`, `Path`, `None`, `Any`, literals, lists, tuples, mappings with
    text keys, other dataclasses, and unions of these. Nothing is converted, except that an integer is taken
    where a float is expected, and a text where a path is. Fields with a default may be missing. A class that
    has another form in data is built by its `from_record(record)`, whose annotation names that form.

    Args:
        cls: the dataclass.
        value: the data, a JSON object.
        where: source of the data, for messages: most often the path of a file.

    Raises:
        RecordError: a field is missing, unknown, of another type or not finite, or the dataclass refuses
            its value with a `ValueError`. Other errors that the dataclass raises pass through.
    """
    record: T = _load(cls, value, _Location(str(where)))
    return record


def to_dict(record: object) -> dict[str, Any]:
    """Return a record as JSON data that `load_record` reads: objects, lists and scalars.

    Records in its fields may have a method `to_dict` of their own, which is called instead.

    Raises:
        TypeError: it is not an instance of a dataclass.
    """
    if not dataclasses.is_dataclass(record) or isinstance(record, type):
        raise TypeError(f"expected an instance of a dataclass, found {record!r}")
    return {field.name: _to_data(getattr(record, field.name)) for field in _list_init_fields(type(record))}


def _to_data(value: object) -> Any:
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_dict(value)
    if isinstance(value, Mapping):
        return {key: _to_data(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_to_data(item) for item in value]
    return str(value) if isinstance(value, Path) else value


@dataclasses.dataclass(frozen=True)
class _Location:
    """The position of a value in its data.

    Attributes:
        source: where the data come from.
        path: names and indices from the outermost object to the value; empty for that object.
    """

    source: str
    path: str = ""

    def field(self, name: str) -> _Location:
        return _Location(self.source, f"{self.path}.{name}" if self.path else name)

    def item(self, index: int) -> _Location:
        return _Location(self.source, f"{self.path}[{index}]")

    def error(self, message: object) -> RecordError:
        return RecordError(
            f"{self.source}: {self.path}: {message}" if self.path else f"{self.source}: {message}"
        )

    def mismatch(self, expected: str, value: object) -> RecordError:
        return self.error(f"expected {expected}, found {reprlib.repr(value)}")


@functools.cache
def _list_init_fields(cls: Any) -> tuple[dataclasses.Field[Any], ...]:
    return tuple(field for field in dataclasses.fields(cls) if field.init)


@functools.cache
def _resolve_types(cls: Any) -> dict[str, Any]:
    return get_type_hints(cls)


def _load_dataclass(cls: Any, value: object, at: _Location) -> Any:
    if not isinstance(value, Mapping):
        raise at.mismatch("an object", value)
    fields, types_by_name = _list_init_fields(cls), _resolve_types(cls)
    names = {field.name for field in fields}
    for key in value:
        if key not in names:
            raise at.field(str(key)).mismatch("no such field", value[key])
    for field in fields:
        optional = (
            field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        )
        if field.name not in value and not optional:
            kind = types_by_name[field.name]
            raise at.field(field.name).error(f"expected {_describe(kind)}, found nothing")
    arguments = {name: _load(types_by_name[name], item, at.field(name)) for name, item in value.items()}
    return _build(cls, arguments, at)


def _build(function: Callable[..., Any], arguments: Mapping[str, Any], at: _Location) -> Any:
    """Call a constructor; errors about its values name the location."""
    try:
        return function(**arguments)
    except RecordError:
        raise
    except ValueError as error:
        raise at.error(error) from error


def _load(kind: Any, value: object, at: _Location) -> Any:
    """Return a value as the annotated type."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if hasattr(kind, "from_record"):
        record = _load(_resolve_types(kind.from_record)["record"], value, at)
        return _build(kind.from_record, {"record": record}, at)
    if dataclasses.is_dataclass(kind):
        return _load_dataclass(kind, value, at)
    if origin in (Union, types.UnionType):
        return _load_union(arguments, value, at)
    if origin is Literal:
        # 1 == True == 1.0, so the type decides too.
        if any(type(value) is type(literal) and value == literal for literal in arguments):
            return value
        raise at.mismatch(_describe(kind), value)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _load_mapping(arguments, value, at)
    if origin is tuple or (isinstance(origin, type) and issubclass(origin, Sequence)):
        return _load_sequence(origin, arguments, value, at)
    return _load_scalar(kind, value, at)


def _load_union(kinds: tuple[Any, ...], value: object, at: _Location) -> Any:
    if value is None and type(None) in kinds:
        return None
    kinds = tuple(kind for kind in kinds if kind is not type(None))
    if len(kinds) == 1:  # its error is more precise
        return _load(kinds[0], value, at)
    for kind in kinds:
        try:
            return _load(kind, value, at)
        except RecordError:
            continue
    raise at.mismatch(" or ".join(_describe(kind) for kind in kinds), value)


def _load_mapping(arguments: tuple[Any, ...], value: object, at: _Location) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise at.mismatch("an object", value)
    kind = arguments[1]
    return {_load_scalar(str, key, at): _load(kind, item, at.field(str(key))) for key, item in value.items()}


def _load_sequence(origin: Any, arguments: tuple[Any, ...], value: object, at: _Location) -> Any:
    if not isinstance(value, list | tuple):
        raise at.mismatch("a list", value)
    if origin is tuple and arguments[-1:] != (...,):
        if len(value) != len(arguments):
            raise at.mismatch(f"a list of {len(arguments)}", value)
        kinds = arguments
    else:
        kinds = (arguments[0],) * len(value)
    items = [
        _load(kind, item, at.item(index)) for index, (kind, item) in enumerate(zip(kinds, value, strict=True))
    ]
    return items if origin is list else tuple(items)


def _load_scalar(kind: Any, value: object, at: _Location) -> Any:
    if kind not in _TYPE_NAMES:
        raise TypeError(f"{at.path}: records have no fields of type {kind}")
    if kind is float and type(value) in (int, float):
        number = _to_float(value)
        if math.isfinite(number):
            return number
    elif kind is Path and type(value) is str:
        return Path(value)
    elif type(value) is kind and (kind is not int or math.isfinite(_to_float(value))):
        return value
    raise at.mismatch(_describe(kind), value)


def _to_float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _describe(kind: Any) -> str:
    """Return an annotated type in words."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return " or ".join(repr(literal) for literal in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(_describe(argument) for argument in arguments)
    if dataclasses.is_dataclass(kind) or (isinstance(origin, type) and issubclass(origin, Mapping)):
        return "an object"
    return "any value" if kind is Any else _TYPE_NAMES.get(kind, "a list")
