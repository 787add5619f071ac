"""Model of the demonstration: a very small vision transformer for 32x32 images of handwritten digits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer

from ..data.demo import DEMO_MODEL

DEMO_WEIGHTS = Path(__file__).with_name("demo_vit.safetensors")

_PRETRAINED_CFG: dict[str, Any] = {
    "architecture": DEMO_MODEL,
    "num_classes": 10,
    "input_size": (3, 32, 32),
    "fixed_input_size": True,
    "interpolation": "bicubic",
    "crop_pct": 1.0,
    "crop_mode": "center",
    "mean": (0.5, 0.5, 0.5),
    "std": (0.5, 0.5, 0.5),
    "first_conv": "patch_embed.proj",
    "classifier": "head",
}


def create_demo_model(seed: int = 0) -> torch.nn.Module:
    """Return the demonstration's architecture with fresh weights; `DEMO_WEIGHTS` holds the trained ones.

    64 patches of 4x4 pixels and a class token, width 64, 6 blocks, 4 heads, 10 classes: 0.3 million
    parameters. Input: float32 [B, 3, 32, 32], normalised with mean and std 0.5; output: logits [B, 10].

    Args:
        seed: seed of the fresh weights; the caller's random state stays as it is.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: torch.nn.Module = VisionTransformer(
            img_size=32, patch_size=4, embed_dim=64, depth=6, num_heads=4, num_classes=10
        )
    model.pretrained_cfg = dict(_PRETRAINED_CFG)
    model.default_cfg = model.pretrained_cfg
    return model
