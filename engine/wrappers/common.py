"""Options that every method has: each wraps the method in one that adds something to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from ..errors import InputError
from ..interface.method import AnyMethod
from ..interface.options import Option, configure, describe
from ..methods.no_adapt import NoAdapt
from .domain_states import Domains
from .guard import Guarded
from .interval import Interval

# What wraps a method, from the inside out; each is named by the option that switches it on.
_WRAPPERS: Mapping[str, Callable[[AnyMethod], AnyMethod]] = {
    "interval": Interval,
    "domains": Domains,
    "guard": Guarded,
}
# Values of these that wrap nothing.
OFF: Mapping[str, object] = {"interval": 0, "domains": 0, "guard": "off"}


def common_options() -> list[Option]:
    """The options that every method has, with their defaults."""
    every: AnyMethod = NoAdapt()
    for wrap in _WRAPPERS.values():
        every = wrap(every)
    return [
        replace(each, kind=_kind_with_off(each), default=OFF.get(each.name, each.default))
        for each in describe(every)
    ]


def wrapped(method: AnyMethod, options: Mapping[str, object]) -> AnyMethod:
    """The method with what some of the common options add: interval updates, domains, and outside the guard.

    Raises:
        InputError: a value cannot be used, or is for something that is not switched on.
    """
    for switch, wrap in _WRAPPERS.items():
        own = {each.name for each in describe(wrap(NoAdapt()))}
        given = {name: value for name, value in options.items() if name in own}
        if switch in given and not _is_off(switch, given[switch]):
            method = configure(wrap(method), given)
        elif details := [name for name in given if name != switch]:
            example = {"guard": "guard=rollback, reset, stop or warn"}.get(switch, f"{switch}=16")
            raise InputError(f"{method.name}: {', '.join(details)} needs {switch}; add {example}")
    return method


def _kind_with_off(each: Option) -> str:
    return f"off|{each.kind}" if OFF.get(each.name) == "off" else each.kind


def _is_off(name: str, value: object) -> bool:
    return not isinstance(value, bool) and str(value) == str(OFF[name])
