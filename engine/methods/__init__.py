"""The methods, by name. The command line and the documentation are made from this one dictionary."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ..errors import InputError
from .base import AnyMethod, Method, Prediction, State
from .fozo import Fozo
from .no_adapt import NoAdapt
from .options import Option, configure, describe, options_of
from .shift import Shift

METHODS: Mapping[str, AnyMethod] = MappingProxyType(
    {
        "no_adapt": NoAdapt(),
        "shift": Shift(),
        "shift_origin": Shift(target="origin"),
        "fozo": Fozo(),
    }
)


def method(name: str, **options: object) -> AnyMethod:
    """The method of this name, with some of its options changed.

    Raises:
        InputError: there is no such method or option, or a value cannot be used.
    """
    if name not in METHODS:
        raise InputError(f"there is no method {name!r}; there are: {', '.join(METHODS)}")
    return configure(METHODS[name], options)


__all__ = [
    "METHODS",
    "AnyMethod",
    "Fozo",
    "Method",
    "NoAdapt",
    "Option",
    "Prediction",
    "Shift",
    "State",
    "configure",
    "describe",
    "method",
    "options_of",
]
