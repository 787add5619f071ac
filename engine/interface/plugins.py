"""Methods of other packages, found by the entry-point group `fozo.methods`.

A package declares them in its `pyproject.toml`; the value is a method or its class:

    [project.entry-points."fozo.methods"]
    my_method = "my_package.my_module:MyMethod"
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection
from dataclasses import fields, is_dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, cast

from ..errors import InputError, reason
from .method import AnyMethod

GROUP = "fozo.methods"
_NAME = re.compile(r"[a-z][a-z0-9_]*")


def load_plugin_methods(reserved: Collection[str]) -> dict[str, AnyMethod]:
    """Return the methods of other packages by name; warn about every entry that cannot be used.

    Args:
        reserved: names of our own methods, which no other package may take.
    """
    methods: dict[str, AnyMethod] = {}
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: (entry.name, entry.value)):
        try:
            if entry.name in reserved or entry.name in methods:
                raise InputError("there is another method of this name")
            methods[entry.name] = _load_method(entry)
        except Exception as error:  # the code of a stranger
            warnings.warn(
                f"the method {entry.name!r} = {entry.value} of {_describe_package(entry)} is ignored: "
                f"{type(error).__name__}: {reason(error)}",
                stacklevel=2,
            )
    return methods


def _load_method(entry: EntryPoint) -> AnyMethod:
    if not _NAME.fullmatch(entry.name):
        raise InputError("the name of a method consists of lower-case letters, digits and _")
    value: Any = entry.load()
    method: Any = value() if isinstance(value, type) else value
    if not is_dataclass(method) or not hasattr(method, "bind"):
        raise InputError("expected a dataclass with a method bind (fozo.methods.Method)")
    undescribed = [f.name for f in fields(method) if "help" not in f.metadata]
    if undescribed:
        raise InputError(f"declare the options {', '.join(undescribed)} with fozo.methods.option")
    hash(method)
    return cast(AnyMethod, method)


def _describe_package(entry: EntryPoint) -> str:
    return "an unknown package" if entry.dist is None else entry.dist.name
