"""Standard output in encodings that lack characters: a default console of Windows, a log."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from typing import Any

import pytest
from doubles import child_environment, fozo_command
from fozo.commands import console


@pytest.mark.parametrize(
    ("encoding", "text", "shown"),
    [
        ("cp1252", "a → b … 5 ± 1 × 2", b"a -> b \x85 5 \xb1 1 \xd7 2"),
        ("cp437", "a → b … 5 ± 1 × 2 – σ", b"a -> b ... 5 \xf1 1 x 2 - \xe5"),
        ("latin-1", "≤ ε 🐶 中", rb"<= epsilon \ud83d\udc36 \u4e2d"),
        ("utf-8", "→ \udcff", b"\xe2\x86\x92 \\udcff"),  # the name of a file that is not text
    ],
)
def test_characters_degrade_and_the_run_goes_on(
    encoding: str, text: str, shown: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(stream, encoding=encoding, newline="\n"))
    console.degrade_characters()
    print(text)
    sys.stdout.flush()
    assert stream.getvalue() == shown + b"\n"


@pytest.mark.parametrize("encoding", ["cp437", "cp1252", "latin-1", "utf-8"])
def test_json_keeps_every_value(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(stream, encoding=encoding, newline="\n"))
    value: Any = {"name": "→ … 🐶 ä"}
    console.echo_json(json.dumps(value, ensure_ascii=False))
    sys.stdout.flush()
    assert json.loads(stream.getvalue().decode(encoding)) == value


@pytest.mark.parametrize("encoding", ["cp437", "latin-1"])
def test_a_command_prints_all_of_its_text(encoding: str) -> None:
    environment = child_environment(PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    result = subprocess.run(fozo_command("methods"), env=environment, capture_output=True)
    assert result.returncode == 0, result.stderr
    assert b"Traceback" not in result.stderr
    assert b"pizo" in result.stdout
