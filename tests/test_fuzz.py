"""A short run of tools/fuzz.py, and proof that it would notice a defect."""

from __future__ import annotations

import random
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from doubles import load_script
from fozo.engine.errors import InputError
from fuzz_changes import Form, change
from fuzz_targets import TARGETS, Target

pytest.importorskip("onnx", reason="graphs to damage are written with onnx")
pytest.importorskip("timm", reason="weights to damage are those of a model of timm")
pytest.importorskip("open_clip", reason="weights to damage are those of a model of open_clip")
pytest.importorskip("resource", reason="measures memory as POSIX systems do")
ROOT = Path(__file__).resolve().parent.parent
INPUTS = 300


@pytest.fixture(autouse=True)
def _cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FOZO_CACHE_DIR", str(tmp_path))  # a target changes it


@pytest.fixture(scope="module")
def fuzzer() -> ModuleType:
    return load_script(ROOT / "tools" / "fuzz.py")


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_files_raise_only_declared_errors(name: str, fuzzer: ModuleType, tmp_path: Path) -> None:
    findings = list(fuzzer.fuzz(TARGETS[name](), INPUTS, 1, tmp_path))
    assert not findings, f"{findings[0].content[:500]!r}\n{findings[0].report}"


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_not_damaged_is_read(name: str, tmp_path: Path) -> None:
    target = TARGETS[name]()
    target.prepare(tmp_path)
    (tmp_path / target.name).write_bytes(target.seeds[0])
    target.read(tmp_path / target.name)


@pytest.mark.parametrize("form", ["json", "zip", "safetensors"])
def test_changes_often_keep_the_form(form: Form, tmp_path: Path) -> None:
    """Otherwise nothing behind the first check of a reader would be tried."""
    name = {"json": "results", "zip": "npz", "safetensors": "safetensors"}[form]
    (seed, *_), generator = TARGETS[name]().seeds, random.Random(0)
    contents = {change(seed, generator, form) for _ in range(200)}
    marks: dict[Form, Any] = {
        "json": lambda content: content[:1] in b"{[" and content[-1:] in b"}]",
        "zip": lambda content: content[:2] == b"PK" and content[-22:-20] == b"PK",
        "safetensors": lambda content: content[8:9] == b"{",
    }
    assert sum(map(marks[form], contents)) > 100


def crash(path: Path) -> None:
    raise KeyError("x")


def hang(path: Path) -> None:
    time.sleep(60)


def refuse(path: Path) -> None:
    raise InputError("no")


@pytest.mark.parametrize(("read", "word"), [(crash, "KeyError"), (hang, "TooSlow"), (refuse, None)])
def test_findings(
    read: Any, word: str | None, fuzzer: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fuzzer, "SECONDS", 0.05)
    findings = list(fuzzer.fuzz(Target([b"seed"], read), 2, 0, tmp_path))
    assert [word in finding.report for finding in findings] == ([True] * 2 if word else [])
