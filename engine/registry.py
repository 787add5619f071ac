"""The methods by name. The command line and the documentation are made from this one dictionary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from .errors import InputError, has_controls
from .interface.method import (
    AnyMethod,
    Method,
    Prediction,
    State,
    count_pull_backs,
    count_views,
    get_view_recipe,
    list_activation_uses,
)
from .interface.method_options import Option, configure, describe, get_options
from .interface.plugins import load_plugin_methods
from .methods.align import Align
from .methods.bca import Bca
from .methods.bn_adapt import BnAdapt
from .methods.cazo import Cazo
from .methods.deyo import Deyo
from .methods.eata import Eata
from .methods.elatta import Elatta
from .methods.eva0 import Eva0
from .methods.foa import Foa
from .methods.foa_bp import FoaBp
from .methods.fozo import Fozo
from .methods.gauss import Gauss
from .methods.lame import Lame
from .methods.moments import MomentMatching
from .methods.no_adapt import NoAdapt
from .methods.pace import Pace
from .methods.pea import Pea
from .methods.pizo import Pizo
from .methods.quar import Quar
from .methods.sar import Sar
from .methods.shift import Shift
from .methods.stss import Stss
from .methods.t3a import T3a
from .methods.tda import Tda
from .methods.tent import Tent
from .methods.zero import Zero
from .methods.zoa import Zoa
from .wrappers.common import list_common_options, wrap_method
from .wrappers.domain_states import Domains
from .wrappers.guard import Guarded
from .wrappers.interval import Interval

_methods: dict[str, AnyMethod] = {
    "no_adapt": NoAdapt(),
    "bn_adapt": BnAdapt(),
    "shift": Shift(),
    "shift_origin": Shift(target="origin"),
    "neo": Shift(target="origin", update="inclusive", average="global"),
    "moments": MomentMatching(),
    "quar": Quar(),
    "pea": Pea(),
    "lame": Lame(),
    "t3a": T3a(),
    "foa": Foa(),
    "foa_2": Foa(population=2, carry_best=False),
    "fozo": Fozo(),
    "zoa": Zoa(),
    "pizo": Pizo(),
    "eva0": Eva0(),
    "cazo": Cazo(),
    "pace": Pace(),
    "align": Align(),
    "tent": Tent(),
    "eata": Eata(),
    "sar": Sar(),
    "deyo": Deyo(),
    "foa_bp": FoaBp(),
    "zero": Zero(),
    "stss": Stss(),
    "tda": Tda(),
    "gauss": Gauss(),
    "bca": Bca(),
    "elatta": Elatta(),
}
METHODS: Mapping[str, AnyMethod] = MappingProxyType(_methods)


def method(name: str, **options: object) -> AnyMethod:
    """Return the method of this name, with some of its own or of the common options changed.

    Raises:
        InputError: there is no such method or option, or a value cannot be used.
    """
    if name not in METHODS:
        raise InputError(f"there is no method {name!r}; there are: {', '.join(METHODS)}")
    common = [option.name for option in list_common_options()]
    method_options = {key: value for key, value in options.items() if key not in common}
    wrapper_options = {key: value for key, value in options.items() if key in common}
    return wrap_method(configure(METHODS[name], method_options, common), wrapper_options)


def parse_method(spec: str) -> tuple[str, AnyMethod]:
    """Return label and method of `[label=]name[:option=value,…]`; the label defaults to the whole text.

    Raises:
        InputError: not of this form, there is no such method or option, or a value cannot be used.
    """
    head, _, text = spec.partition(":")
    label, _, name = head.rpartition("=")
    if has_controls(spec):
        raise InputError(
            f"expected a method in one line of plain text, found control characters in {spec!r}; a label "
            "is the name of a column"
        )
    pairs = [pair.partition("=") for pair in text.split(",")] if text else []
    broken = [key for key, equals, _ in pairs if not equals]
    if broken:
        raise InputError(f"expected {name}:OPTION=VALUE,…, found {broken[0]!r} in {spec!r}")
    return label or spec, method(name, **{key.strip(): value.strip() for key, _, value in pairs})


def parse_methods(specs: Sequence[str]) -> dict[str, AnyMethod]:
    """Return methods by label, each as for `parse_method`.

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
    "Align",
    "AnyMethod",
    "Bca",
    "BnAdapt",
    "Cazo",
    "Deyo",
    "Domains",
    "Eata",
    "Elatta",
    "Eva0",
    "Foa",
    "FoaBp",
    "Fozo",
    "Gauss",
    "Guarded",
    "Interval",
    "Lame",
    "Method",
    "MomentMatching",
    "NoAdapt",
    "Option",
    "Pace",
    "Pea",
    "Pizo",
    "Prediction",
    "Quar",
    "Sar",
    "Shift",
    "State",
    "Stss",
    "T3a",
    "Tda",
    "Tent",
    "Zero",
    "Zoa",
    "configure",
    "count_pull_backs",
    "count_views",
    "describe",
    "get_options",
    "get_view_recipe",
    "list_activation_uses",
    "list_common_options",
    "method",
    "parse_method",
    "parse_methods",
]

# At the end, because a plugin may import this module.
_methods.update(load_plugin_methods(reserved=frozenset(_methods)))
