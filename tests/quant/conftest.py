"""Bundles and images to quantise, and gates that random models pass."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from fozo.data.source import SourceImages
from fozo.engine.bundle.bundle import Bundle
from quant_doubles import CleanImages, set_relative_time

onnx = pytest.importorskip("onnx", reason="quantisation reads and writes graphs with onnx")


@pytest.fixture
def bundle(bundle_path: Path, tmp_path: Path) -> Bundle:
    """Copy the shared bundle, to write to it."""
    shutil.copytree(bundle_path, tmp_path / "bundle")
    return Bundle.open(tmp_path / "bundle")


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    set_relative_time(monkeypatch, 0.5)


@pytest.fixture
def lenient(fast: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lower the agreement asked for: the classes of a random model are close to each other."""
    monkeypatch.setattr("fozo.quant.quantization_report.MIN_AGREEMENT", 50.0)


@pytest.fixture
def images(clean_images: CleanImages) -> tuple[SourceImages, SourceImages]:
    return clean_images(22, 31), clean_images(40, 32)
