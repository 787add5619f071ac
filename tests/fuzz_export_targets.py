"""Readers of an export that are fuzzed: weights, and the files of settings beside them."""

from __future__ import annotations

import argparse
import io
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from export_doubles import SMALL
from fozo.export.hugging_face_images import read_preparation
from fozo.export.hugging_face_labels import read_class_labels
from fozo.export.hugging_face_weights import take_settings
from fozo.export.image_format import ImageOptions
from fozo.export.weights import load_weights
from fuzz_targets import Target
from safetensors.torch import save as save_safetensors
from timm.models.vision_transformer import VisionTransformer
from weights_doubles import CLASSES, DEPTH, HEADS, PATCH, VIT, WIDTH, in_google_layout, make_state

torch.set_num_threads(1)
warnings.filterwarnings("ignore", module="torch")


def make_pytorch_target() -> Target:
    """Load checkpoints: plain, of a training script, with the names of transformers, and of old versions."""
    state = _make_model().state_dict()
    training = {"state_dict": state, "state_dict_ema": state, "epoch": 3, "args": argparse.Namespace(lr=0.1)}
    seeds = []
    for content, is_archive in ((state, True), (training, True), (make_state(), True), (state, False)):
        stream = io.BytesIO()
        torch.save(content, stream, _use_new_zipfile_serialization=is_archive)
        seeds.append(stream.getvalue())
    return _make_weights_target(seeds, "w.pt")


def make_safetensors_target() -> Target:
    """Load safetensors."""
    state = _make_model().state_dict()
    return _make_weights_target([save_safetensors(state), save_safetensors(make_state())], "w.safetensors")


def make_google_target() -> Target:
    """Load Google's .npz files."""
    stream = io.BytesIO()
    np.savez(stream, **in_google_layout(_make_model()))
    return _make_weights_target([stream.getvalue()], "w.npz")


def make_config_target() -> Target:
    """Compare a model with a config.json of transformers."""
    settings = {
        "id2label": {str(number): f"class {number}" for number in range(CLASSES)},
        "model_type": "vit",
        "num_attention_heads": HEADS,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
    }
    model = _make_model()

    def read(path: Path) -> None:
        take_settings(model, path.with_name("w.pt"))
        read_class_labels(path, CLASSES)

    return Target([json.dumps(settings).encode()], read, "json", "config.json")


def make_index_target() -> Target:
    """Load weights in two files by their index."""
    state, model = make_state(), _make_model()
    files = {"a.safetensors": list(state)[:9], "b.safetensors": list(state)[9:]}
    places = {name: file for file, names in files.items() for name in names}

    def add_files(folder: Path) -> None:
        for file, names in files.items():
            (folder / file).write_bytes(save_safetensors({name: state[name] for name in names}))

    return Target(
        [json.dumps({"metadata": {"total_size": 1}, "weight_map": places}).encode()],
        lambda path: load_weights(model, path),
        "json",
        "model.safetensors.index.json",
        prepare=add_files,
    )


def make_preprocessor_target() -> Target:
    """Read how images are prepared from a preprocessor_config.json of transformers."""
    crop = {"image_processor_type": "BitImageProcessor", "do_center_crop": True, "crop_size": 224}
    seeds = [VIT, {**VIT, **crop, "size": {"shortest_edge": 256}}]
    return Target(
        [json.dumps(settings).encode() for settings in seeds],
        lambda path: read_preparation(path.with_name("w.pt"), ImageOptions()),
        "json",
        "preprocessor_config.json",
    )


def _make_weights_target(seeds: list[bytes], name: str) -> Target:
    model = _make_model()
    form = "safetensors" if name.endswith("safetensors") else "zip"
    return Target(seeds, lambda path: load_weights(model, path, resample=True), form, name)


def _make_model() -> Any:
    return VisionTransformer(
        img_size=SMALL,
        patch_size=PATCH,
        embed_dim=WIDTH,
        depth=DEPTH,
        num_heads=HEADS,
        num_classes=CLASSES,
    )
