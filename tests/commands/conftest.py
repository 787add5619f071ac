"""The demonstration's bundle, exported by the command line, and results on it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from command_doubles import (
    QUICK,
    succeeds,
)


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    pytest.importorskip("torch", reason="the bundle is exported from PyTorch")
    folder = tmp_path_factory.mktemp("cli")
    return folder / "bundle", succeeds("export", "--model", "fozo_demo_vit", "--no-int8", cwd=folder)


@pytest.fixture(scope="session")
def bundle(exported: tuple[Path, str]) -> Path:
    return exported[0]


@pytest.fixture(scope="session")
def sourceless(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the bundle without source statistics."""
    copy = tmp_path_factory.mktemp("sourceless") / "bundle"
    shutil.copytree(bundle, copy)
    raw = json.loads((copy / "bundle.json").read_bytes())
    name = raw["source"].pop("fp32")["file"]
    raw["files"].pop(name)
    (copy / name).unlink()
    (copy / "bundle.json").write_text(json.dumps(raw))
    return copy


@pytest.fixture(scope="session")
def adapted(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("adapted") / "results.json"
    return out, succeeds("adapt", bundle, *QUICK, "--out", out)
