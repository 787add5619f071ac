"""Readers of an export of CLIP that are fuzzed: weights, and open_clip's file of settings beside them."""

from __future__ import annotations

import io
import json
import tempfile
from pathlib import Path

import torch
from clip_export_doubles import CONFIGURATION, save_openai_archive
from fozo.export.clip_activation import decide_activation
from fozo.export.clip_configuration import create_clip, read_clip_settings
from fozo.export.clip_source import resolve_images
from fozo.export.clip_weights import load_clip_weights, read_clip_weights
from fozo.export.image_format import ImageOptions, read_image_format, read_preprocessing
from fuzz_targets import Target

torch.set_num_threads(1)
SMALL = {**CONFIGURATION, "text_cfg": {**CONFIGURATION["text_cfg"], "vocab_size": 60}}


def make_clip_weights_target() -> Target:
    """Load weights: plain, of a training script, and an archive as OpenAI released them."""
    model = create_clip(SMALL, "gelu")
    training = {"state_dict": {f"module.{name}": value for name, value in model.state_dict().items()}}
    seeds = []
    for content in (model.state_dict(), training):
        stream = io.BytesIO()
        torch.save(content, stream)
        seeds.append(stream.getvalue())
    with tempfile.TemporaryDirectory() as folder:
        seeds.append(save_openai_archive(Path(folder), create_clip(SMALL, "gelu")).read_bytes())
    return Target(
        seeds, lambda path: load_clip_weights(model, "tiny", read_clip_weights(path)), "zip", "w.pt"
    )


def make_clip_settings_target() -> Target:
    """Read activation and preparation of images from an open_clip_config.json."""
    images = {
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25] * 3,
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }
    settings = {"model_cfg": {**SMALL, "quick_gelu": True}, "preprocess_cfg": images}
    model = create_clip(SMALL, "gelu")

    def read(path: Path) -> None:
        settings = read_clip_settings(path.with_name("w.pt"), SMALL)
        decide_activation("tiny", SMALL, asked=None, openai_layout=False, settings=settings, random=True)
        config = resolve_images(model, settings, ImageOptions())
        read_preprocessing(config, read_image_format(config, None).size)

    return Target([json.dumps(settings).encode()], read, "json", "open_clip_config.json")
