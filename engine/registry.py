"""The methods, by name. The command line and the documentation are made from this one dictionary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from .errors import InputError
from .interface.method import AnyMethod, Method, Prediction, State
from .interface.options import Option, configure, describe, options_of
from .methods.bn_adapt import BnAdapt
from .methods.foa import Foa
from .methods.fozo import Fozo
from .methods.lame import Lame
from .methods.moments import MomentMatching
from .methods.no_adapt import NoAdapt
from .methods.pizo import Pizo
from .methods.shift import Shift
from .methods.t3a import T3a
from .methods.zoa import Zoa
from .wrappers.common import common_options, wrapped
from .wrappers.domain_states import Domains
from .wrappers.guard import Guarded
from .wrappers.interval import Interval

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
        "pizo": Pizo(),
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


def parse_method(spec: str) -> tuple[str, AnyMethod]:
    """Label and method from `[label=]name[:option=value,…]`; without a label, the whole is the label.

    Raises:
        InputError: not of this form, there is no such method or option, or a value cannot be used.
    """
    head, _, text = spec.partition(":")
    label, _, name = head.rpartition("=")
    pairs = [part.partition("=") for part in text.split(",")] if text else []
    broken = [key for key, equals, _ in pairs if not equals]
    if broken:
        raise InputError(f"expected {name}:OPTION=VALUE,…, found {broken[0]!r} in {spec!r}")
    return label or spec, method(name, **{key.strip(): value.strip() for key, _, value in pairs})


def parse_methods(specs: Sequence[str]) -> dict[str, AnyMethod]:
    """Methods by label, each as for `parse_method`.

    Raises:
        InputError: as there, or two have the same label.
    """
    methods: dict[str, AnyMethod] = {}
    for spec in specs:
        label, parsed = parse_method(spec)
        if label in methods:
            raise InputError(f"the method {label} is given twice; label one of them: LABEL={spec}")
        methods[label] = parsed
    return methods


__all__ = [
    "METHODS",
    "AnyMethod",
    "BnAdapt",
    "Domains",
    "Foa",
    "Fozo",
    "Guarded",
    "Interval",
    "Lame",
    "Method",
    "MomentMatching",
    "NoAdapt",
    "Option",
    "Pizo",
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
    "parse_method",
    "parse_methods",
]
