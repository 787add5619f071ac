"""Modules of bench/, imported as when one of its scripts is run."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCH = Path(__file__).resolve().parent.parent / "bench"


def import_bench(monkeypatch: pytest.MonkeyPatch, name: str) -> ModuleType:
    """Return a module of bench/ and its neighbours; none stays behind, as others may have such names."""
    monkeypatch.syspath_prepend(str(BENCH))
    names = {path.stem for path in BENCH.glob("*.py")}
    for neighbour in names:
        monkeypatch.delitem(sys.modules, neighbour, raising=False)
    module = importlib.import_module(name)
    for neighbour in names & sys.modules.keys():
        monkeypatch.delitem(sys.modules, neighbour)
    return module
