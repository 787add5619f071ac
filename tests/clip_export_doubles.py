"""Tiny CLIP models that open_clip knows by name, and files of their weights."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from export_doubles import save_weights
from vit_doubles import randomise

torch = pytest.importorskip("torch", reason="export needs PyTorch")
open_clip = pytest.importorskip("open_clip", reason="export of CLIP needs open_clip")

from fozo.export.clip_configuration import create_clip  # noqa: E402
from fozo.export.clip_exporter import export_clip  # noqa: E402
from fozo.export.clip_source import ClipRequest  # noqa: E402
from fozo.export.exporter import ExportResult  # noqa: E402

NAME = "fozo-tiny-clip"
CONFIGURATION: dict[str, Any] = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "patch_size": 8, "head_width": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}
OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)
ANIMALS = ("cat", "golden retriever", "Dandie Dinmont Terrier", "crème brûlée", "bird's nest")


def register(folder: Path, name: str = NAME, **changes: Any) -> str:
    """Make a configuration known to open_clip, and return its name."""
    path = folder / f"{name}.json"
    path.write_text(json.dumps({**CONFIGURATION, **changes}), encoding="utf-8")
    open_clip.add_model_config(path)
    return name


def make_state(seed: int = 0, activation: str = "gelu", **changes: Any) -> Any:
    """Return a tiny model with every parameter random, in the precision of OpenAI's releases."""
    model = create_clip({**CONFIGURATION, **changes}, activation)
    scale = model.logit_scale.detach().clone()
    randomise(model, seed)
    with torch.no_grad():
        model.logit_scale.copy_(scale + 1)
    return model


def write_names(folder: Path, names: tuple[str, ...] = ANIMALS) -> Path:
    path = folder / "animals.txt"
    path.write_text("\n".join(names), encoding="utf-8")
    return path


def export_tiny(folder: Path, state: Any, **options: Any) -> ExportResult:
    """Export a tiny model from a file, with a few classes."""
    options = {"classes_file": write_names(folder), "activation": "gelu", **options}
    name = register(folder)
    weights = state if isinstance(state, Path) else save_weights(folder, state)
    return export_clip(ClipRequest(name, weights, **options), folder / "bundle")


def save_openai_archive(folder: Path, model: Any) -> Path:
    """Save a TorchScript archive with half-precision weights and the entries of OpenAI's releases."""
    for entry, value in (("input_resolution", 32), ("context_length", 77), ("vocab_size", 49408)):
        if hasattr(model, entry):
            delattr(model, entry)
        model.register_buffer(entry, torch.tensor(value))
    images, texts = torch.zeros(1, 3, 32, 32), torch.zeros(1, 77, dtype=torch.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about tracing, which is how such archives were made
        inputs = {"encode_image": (images,), "encode_text": (texts,)}
        traced = torch.jit.trace_module(model, inputs, check_trace=False)
    path = folder / "ViT-tiny.pt"
    traced.half().save(str(path))
    return path
