"""The common options of all methods: each wraps the method in one that adds something to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from ..errors import InputError
from ..interface.method import AnyMethod
from ..interface.method_options import Option, configure, describe
from .domain_states import Domains
from .guard import Guarded
from .interval import Interval
from .temperature import Temperature

# Wrappers from the inside out, by the option that switches each on.
_WRAPPERS: Mapping[str, Callable[[AnyMethod], AnyMethod]] = {
    "interval": Interval,
    "domains": Domains,
    "guard": Guarded,
    "temperature": Temperature,
}
# Values of these options that wrap nothing.
OFF: Mapping[str, object] = {"interval": 0, "domains": 0, "guard": "off", "temperature": 1.0}


def list_common_options() -> list[Option]:
    """Return the options that every method has, with their defaults."""
    return [
        replace(option, kind=_describe_kind(option), default=OFF.get(option.name, option.default))
        for wrap in _WRAPPERS.values()
        for option in describe(wrap)
    ]


def wrap_method(method: AnyMethod, options: Mapping[str, object]) -> AnyMethod:
    """Return the method wrapped as some of the common options say, `interval` inside, `temperature` outside.

    Raises:
        InputError: a value cannot be used, or is for something that is not switched on.
    """
    for switch, wrap in _WRAPPERS.items():
        names = {option.name for option in describe(wrap)}
        changes = {name: value for name, value in options.items() if name in names}
        if switch in changes and not _is_off(switch, changes[switch]):
            method = configure(wrap(method), changes)
        elif details := [name for name in changes if name != switch]:
            example = {"guard": "guard=rollback, reset, stop or warn"}.get(switch, f"{switch}=16")
            raise InputError(f"{method.name}: {', '.join(details)} needs {switch}; add {example}")
    return method


def _describe_kind(option: Option) -> str:
    return f"off|{option.kind}" if OFF.get(option.name) == "off" else option.kind


def _is_off(name: str, value: object) -> bool:
    return not isinstance(value, bool) and str(value) == str(OFF[name])
