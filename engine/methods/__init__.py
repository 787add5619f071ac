"""The methods, by name. The command line and the documentation are made from this one dictionary."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ..errors import InputError
from .base import AnyMethod, Method, Prediction, State
from .bn_adapt import BnAdapt
from .foa import Foa
from .fozo import Fozo
from .guarded import Guarded
from .interval import Interval
from .lame import Lame
from .moments import MomentMatching
from .no_adapt import NoAdapt
from .options import Option, configure, describe, options_of
from .shift import Shift
from .t3a import T3a
from .wrappers import common_options, wrapped
from .zoa import Zoa

METHODS: Mapping[str, AnyMethod] = MappingProxyType(
    {
        "no_adapt": NoAdapt(),
        "bn_adapt": BnAdapt(),
        "shift": Shift(),
        "shift_origin": Shift(target="origin"),
        "neo": Shift(target="origin", update="inclusive", average="global"),
        "moments": MomentMatching(),
        "lame": Lame(),
        "t3a": T3a(),
        "foa": Foa(),
        "foa_2": Foa(population=2, carry_best=False),
        "fozo": Fozo(),
        "zoa": Zoa(),
    }
)


def method(name: str, **options: object) -> AnyMethod:
    """The method of this name, with some of its options or of those that every method has changed.

    Raises:
        InputError: there is no such method or option, or a value cannot be used.
    """
    if name not in METHODS:
        raise InputError(f"there is no method {name!r}; there are: {', '.join(METHODS)}")
    common = [option.name for option in common_options()]
    own = {key: value for key, value in options.items() if key not in common}
    rest = {key: value for key, value in options.items() if key in common}
    return wrapped(configure(METHODS[name], own, common), rest)


__all__ = [
    "METHODS",
    "AnyMethod",
    "BnAdapt",
    "Foa",
    "Fozo",
    "Guarded",
    "Interval",
    "Lame",
    "Method",
    "MomentMatching",
    "NoAdapt",
    "Option",
    "Prediction",
    "Shift",
    "State",
    "T3a",
    "Zoa",
    "common_options",
    "configure",
    "describe",
    "method",
    "options_of",
]
