"""Helpers for the tests of quantisations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fozo.data.source import SourceImages
from fozo.engine.model import FloatArray, Outputs

onnx = pytest.importorskip("onnx", reason="quantisation reads and writes graphs with onnx")

from fozo.quant import quantizer  # noqa: E402
from fozo.quant.graph_comparison import Comparison  # noqa: E402

CleanImages = Callable[..., SourceImages]
PRODUCTS = 1 + 3 * 7


def ignore_progress(count: int) -> None:
    """Ignore the progress of a step."""


def set_relative_time(monkeypatch: pytest.MonkeyPatch, ratio: float) -> None:
    """Fix the time of int8 over that of fp32, which differs between machines."""
    monkeypatch.setattr(quantizer, "measure_relative_time", lambda *arguments: (0.004, ratio))


def read_folder(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def check_comparison(found: Comparison, a: Outputs, b: Outputs, labels: Any) -> None:
    def cosine(x: FloatArray, y: FloatArray) -> float:
        x, y = x.astype(np.float64), y.astype(np.float64)
        products = np.einsum("...i,...i->...", x, y)
        return float((products / np.sqrt((x * x).sum(-1) * (y * y).sum(-1))).mean())

    signal = b.features.astype(np.float64)
    noise = a.features - signal
    assert found.images == len(a.logits)
    assert found.agreement == pytest.approx(100 * np.mean(a.logits.argmax(1) == b.logits.argmax(1)))
    assert found.cosine_logits == pytest.approx(cosine(a.logits, b.logits), abs=1e-5)
    assert found.cosine_features == pytest.approx(cosine(a.features, b.features), abs=1e-5)
    assert found.signal_to_noise == pytest.approx(
        10 * np.log10((signal**2).sum() / (noise**2).sum()), abs=0.01
    )
    furthest = max(np.abs(a.logits - b.logits).max(), np.abs(noise).max())
    assert found.max_abs_difference == pytest.approx(furthest, rel=1e-4)
    if labels is None:
        assert found.accuracy is found.reference_accuracy is found.loss is None
    else:
        assert found.accuracy == pytest.approx(100 * np.mean(a.logits.argmax(1) == labels))
        assert found.reference_accuracy == pytest.approx(100 * np.mean(b.logits.argmax(1) == labels))
        assert found.loss == pytest.approx(found.reference_accuracy - found.accuracy)
