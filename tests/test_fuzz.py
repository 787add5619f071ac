"""A short run of tools/fuzz.py, and proof that it would notice a defect."""

from __future__ import annotations

import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from doubles import load_script
from fozo.engine.errors import InputError

pytest.importorskip("onnx", reason="graphs to damage are written with onnx")
pytest.importorskip("resource", reason="measures memory as POSIX systems do")
ROOT = Path(__file__).resolve().parent.parent
INPUTS = 300
TARGETS = [
    "manifest",
    "onnx",
    "npz",
    "checkpoint",
    "progress",
    "results",
    "labels",
    "classes",
    "methods",
    "images",
]


@pytest.fixture(scope="module")
def fuzzer() -> ModuleType:
    return load_script(ROOT / "tools" / "fuzz.py")


def test_every_target_is_tested(fuzzer: ModuleType) -> None:
    assert list(fuzzer.make_targets()) == TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_files_raise_only_declared_errors(name: str, fuzzer: ModuleType, tmp_path: Path) -> None:
    findings = list(fuzzer.fuzz(fuzzer.make_targets()[name], INPUTS, 1, tmp_path))
    assert not findings, f"{findings[0].content[:500]!r}\n{findings[0].report}"


@pytest.mark.parametrize("name", ["npz", "results", "labels", "classes", "methods", "images", "onnx"])
def test_what_is_not_damaged_is_read(name: str, fuzzer: ModuleType, tmp_path: Path) -> None:
    target = fuzzer.make_targets()[name]
    (tmp_path / "input").write_bytes(target.seeds[0])
    target.read(tmp_path / "input")


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
    findings = list(fuzzer.fuzz(fuzzer.Target([b"seed"], read), 2, 0, tmp_path))
    assert [word in finding.report for finding in findings] == ([True] * 2 if word else [])
