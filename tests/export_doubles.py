"""Weights files of a small model of timm, and exports of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fozo.engine.bundle.bundle import Bundle

torch = pytest.importorskip("torch", reason="export needs PyTorch")
timm = pytest.importorskip("timm", reason="export needs timm")

from fozo.export.exporter import export_model  # noqa: E402
from fozo.export.model_request import Request  # noqa: E402
from fozo.export.weights import LoadedWeights  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

RANDOM = LoadedWeights("random")

SMALL = 32  # pixels: an export verifies itself, which takes seconds at the size of the model


def export_small(folder: Path, weights: Path, **options: Any) -> Bundle:
    return export_model(Request("test_vit", weights, image_size=SMALL, **options), folder / "bundle").bundle


def save_weights(folder: Path, state: Any, name: str = "weights.pt") -> Path:
    path = folder / name
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path
