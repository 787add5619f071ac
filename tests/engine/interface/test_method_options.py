"""Options of all methods: descriptions, limits, and values typed as text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal, get_origin, get_type_hints

import pytest
from fozo.engine.errors import InputError
from fozo.engine.registry import METHODS, describe, method
from fozo.engine.streams.adapter import Adapter

registered = pytest.mark.parametrize("name", METHODS)


def kinds(name: str) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Yield name, type and metadata of every option of a registered method."""
    configured = METHODS[name]
    hints = get_type_hints(type(configured))
    for f in fields(configured):
        yield f.name, hints[f.name], dict(f.metadata)


OPTIONS = [(name, *option) for name in METHODS for option in kinds(name)]


def invalid_values(hint: Any, metadata: dict[str, Any]) -> list[object]:
    if get_origin(hint) is Literal:
        return ["nonsense", "", None, 1, True, "BEST", []]
    if hint is bool:
        return ["nonsense", "", None, 1, 0.0, "2", []]
    common: list[object] = ["", "x", None, [], 1j, float("nan"), "nan", True]
    if hint is int:
        common += [1.5, 1.0, "1.5", "1e3"]
    if metadata["low"] is not None:
        common += [metadata["low"] - 1, str(metadata["low"] - 1), -float("inf")]
    if metadata["high"] is not None:
        common += [metadata["high"] + 1, float("inf"), "inf"]
    return common


def test_registry_names() -> None:
    assert METHODS
    for name in METHODS:
        assert re.fullmatch(r"[a-z][a-z0-9_]*", name)
        assert method(name) == METHODS[name]
    assert len({repr(each) for each in METHODS.values()}) == len(METHODS)
    with pytest.raises(TypeError):
        METHODS["other"] = METHODS["fozo"]  # type: ignore[index]


def test_unknown_method_and_option(bundle_path: Path) -> None:
    with pytest.raises(InputError, match="fozo"):
        method("fzoo")
    with pytest.raises(InputError, match="fozo"):
        Adapter.open(bundle_path, method="")
    for name in METHODS:
        with pytest.raises(InputError, match="no option 'promts'"):
            method(name, promts=3)
        with pytest.raises(InputError, match="no option 'promts'"):
            Adapter.open(bundle_path, method=name, promts=3)


@pytest.mark.parametrize(
    ("name", "option", "hint", "metadata"), OPTIONS, ids=[f"{o[0]}-{o[1]}" for o in OPTIONS]
)
def test_options_are_validated(name: str, option: str, hint: Any, metadata: dict[str, Any]) -> None:
    for value in invalid_values(hint, metadata):
        with pytest.raises(InputError, match=option):
            method(name, **{option: value})
            pytest.fail(f"{name} accepted {option}={value!r}")
    with pytest.raises(InputError, match=option):
        replace(METHODS[name], **{option: object()})


@pytest.mark.parametrize(
    ("name", "option", "hint", "metadata"), OPTIONS, ids=[f"{o[0]}-{o[1]}" for o in OPTIONS]
)
def test_options_can_be_typed_as_text(name: str, option: str, hint: Any, metadata: dict[str, Any]) -> None:
    value = getattr(METHODS[name], option)
    assert method(name, **{option: str(value)}) == METHODS[name]
    for limit in (metadata["low"], metadata["high"]):
        if limit is not None:
            text = str(int(limit)) if hint is int else str(limit)
            floors = {"epsilon": {"epsilon_min": "0"}, "rate_max": {"rate_min": "0"}}.get(option, {})
            floor = {other: low for other, low in floors.items() if hasattr(METHODS[name], other)}
            changed = getattr(method(name, **{**floor, option: text}), option)
            assert changed == limit
            assert type(changed) is hint


@registered
def test_options_are_described(name: str) -> None:
    described = describe(METHODS[name])
    assert [option.name for option in described] == [f.name for f in fields(METHODS[name])]
    for option in described:
        assert option.help.strip() == option.help != ""
        assert option.kind in ("int", "float", "bool") or "|" in option.kind
        assert option.default == getattr(METHODS[name], option.name)
