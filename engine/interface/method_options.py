"""Options of a method: fields of its dataclass that know their meaning, their choices and their limits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import Field, dataclass, field, fields, replace
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from ..errors import InputError
from .method import Method

MethodT = TypeVar("MethodT", bound=Method[Any])


def option(default: Any, help: str, *, low: float | None = None, high: float | None = None) -> Any:
    """Declare a dataclass field with its meaning and, for numbers, its inclusive limits.

    >>> @dataclass(frozen=True)
    ... class Example:
    ...     name = "example"
    ...     rate: float = option(0.1, "learning rate", low=0)
    >>> describe(Example())
    [Option(name='rate', kind='float', default=0.1, help='learning rate')]
    >>> validate(Example(rate=-1.0))
    Traceback (most recent call last):
        ...
    fozo.engine.errors.InputError: example: option rate must be float ≥ 0, found -1.0
    """
    return field(default=default, metadata={"help": help, "low": low, "high": high})


@dataclass(frozen=True)
class Option:
    """One option of a method, as shown to people.

    Attributes:
        name: its name.
        kind: `int`, `float`, `bool` or the choices, separated by `|`.
        default: its value in the method that was asked.
        help: what it means.
    """

    name: str
    kind: str
    default: object
    help: str


def describe(method: Any) -> list[Option]:
    """Return a method's options with their values; the options of a wrapped method come first.

    Of a class, these are the options that it declares, with their defaults.
    """
    hints = get_type_hints(method if isinstance(method, type) else type(method))
    wrapped = getattr(method, "method", None)
    return ([] if wrapped is None else describe(wrapped)) + [
        Option(f.name, _describe_kind(hints[f.name]), getattr(method, f.name), f.metadata["help"])
        for f in _list_options(method)
    ]


def get_options(method: Any) -> dict[str, object]:
    """Return the values of a method's options by name."""
    return {option.name: option.default for option in describe(method)}


def validate(method: Any) -> None:
    """Check every option of a method; called by its `__post_init__`.

    Raises:
        InputError: a value is of the wrong type, not among the choices, or outside its limits.
    """
    hints = get_type_hints(type(method))
    for f in _list_options(method):
        value, hint = getattr(method, f.name), hints[f.name]
        if get_origin(hint) is Literal:
            valid = value in get_args(hint)
        elif hint is float:
            valid = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        else:
            valid = type(value) is hint
        low, high = f.metadata["low"], f.metadata["high"]
        if valid and low is not None:
            valid = value >= low
        if valid and high is not None:
            valid = value <= high
        if not valid:
            limits = "".join(
                f" {word} {bound:g}" for word, bound in (("≥", low), ("≤", high)) if bound is not None
            )
            raise InputError(
                f"{method.name}: option {f.name} must be {_describe_kind(hint)}{limits}, found {value!r}"
            )


def configure(method: MethodT, options: Mapping[str, object], common: Sequence[str] = ()) -> MethodT:
    """Return the method with some options changed; values may be strings, as typed on a command line.

    Args:
        method: the method.
        options: new values by name.
        common: names of options that every method has, for the message where one does not exist.

    Raises:
        InputError: an option does not exist, or a value cannot be used for it.
    """
    hints = get_type_hints(type(method))
    names = {f.name for f in _list_options(method)}
    changes = {}
    for name, value in options.items():
        if name not in names:
            raise InputError(
                f"{method.name} has no option {name!r}; it has: {', '.join(sorted(names)) or 'none'}"
                + (f"; every method has: {', '.join(common)}" if common else "")
            )
        changes[name] = _parse_value(hints[name], value) if isinstance(value, str) else value
    return replace(method, **changes)  # type: ignore[type-var]


def _list_options(method: Any) -> list[Field[Any]]:
    """Return the fields that are options: all but a wrapped method."""
    return [f for f in fields(method) if "help" in f.metadata]


def _parse_value(hint: Any, text: str) -> object:
    if hint is bool:
        return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}.get(
            text.lower(), text
        )
    if hint in (int, float):
        try:
            return hint(text)
        except ValueError:
            return text
    return text


def _describe_kind(hint: Any) -> str:
    return "|".join(get_args(hint)) if get_origin(hint) is Literal else str(hint.__name__)
