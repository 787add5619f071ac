"""Options that every method has: each wraps the method in one that adds something to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..errors import InputError
from .base import AnyMethod
from .guarded import Guarded
from .interval import Interval
from .no_adapt import NoAdapt
from .options import Option, configure, describe

# Values of the two that wrap nothing.
OFF: Mapping[str, object] = {"interval": 0, "guard": "off"}


def common_options() -> list[Option]:
    """The options that every method has, with their defaults."""
    return [
        replace(each, kind=_kind_with_off(each), default=OFF.get(each.name, each.default))
        for each in describe(Guarded(Interval(NoAdapt())))
    ]


def wrapped(method: AnyMethod, options: Mapping[str, object]) -> AnyMethod:
    """The method with what some of the common options add: interval updates, and outside them the guard.

    Raises:
        InputError: a value cannot be used, or the guard has options but no policy.
    """
    switches = {name: options[name] for name in OFF if name in options and not _is_off(name, options[name])}
    details = {name: value for name, value in options.items() if name not in OFF}
    if details and "guard" not in switches:
        raise InputError(
            f"{method.name}: {', '.join(details)} needs a guard; add guard=rollback, reset, stop or warn"
        )
    if "interval" in switches:
        method = configure(Interval(method), {"interval": switches["interval"]})
    if "guard" in switches:
        method = configure(Guarded(method), {"guard": switches["guard"], **details})
    return method


def _kind_with_off(each: Option) -> str:
    return f"off|{each.kind}" if OFF.get(each.name) == "off" else each.kind


def _is_off(name: str, value: object) -> bool:
    return not isinstance(value, bool) and str(value) == str(OFF[name])
