"""Model of the CLIP demonstration: a tiny CLIP for 32x32 images of handwritten digits and their captions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg, set_model_preprocess_cfg

from .demo_vocabulary import read_demo_tokenizer

DEMO_CLIP_WEIGHTS = Path(__file__).with_name("demo_clip.safetensors")
WIDTH = 64
CONTEXT_LENGTH = 32


def create_demo_clip(seed: int = 0) -> Any:
    """Return the architecture with fresh weights; `DEMO_CLIP_WEIGHTS` holds the trained ones.

    Image tower: 64 patches of 4x4 pixels and a class token, 5 blocks. Text tower: 2 blocks over at most 32
    tokens of `demo_vocabulary`. Both have width 64, 4 heads and MLPs twice as wide; embeddings have 64
    numbers.

    Raises:
        InputError: the vocabulary is missing or damaged.

    Args:
        seed: seed of the fresh weights; the caller's random state stays as it is.
    """
    vocabulary_size = read_demo_tokenizer().vocabulary.end + 1
    vision = CLIPVisionCfg(layers=5, width=WIDTH, head_width=16, mlp_ratio=2, patch_size=4, image_size=32)
    text = CLIPTextCfg(
        CONTEXT_LENGTH, vocab_size=vocabulary_size, width=WIDTH, heads=4, layers=2, mlp_ratio=2
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CLIP(WIDTH, vision, text)
    half = (0.5, 0.5, 0.5)
    images = {"size": 32, "mode": "RGB", "mean": half, "std": half, "interpolation": "bicubic"}
    set_model_preprocess_cfg(model, {**images, "resize_mode": "shortest", "fill_color": 0})
    return model
