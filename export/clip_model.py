"""Plain description of CLIP's image tower, read from open_clip, and reasons why one cannot be exported."""

from __future__ import annotations

from typing import Any

import numpy as np
from open_clip.transformer import VisionTransformer
from torch import nn

from .open_clip_blocks import read_blocks, read_norm, require
from .parameters import read_array, read_pair
from .transformer_model import Linear
from .vit_model import Vit, convert_patch


def read_image_tower(tower: Any) -> Vit:
    """Read an image tower; the head of the result is the projection to the embedding.

    Args:
        tower: open_clip's `VisionTransformer`.

    Raises:
        ExportError: the tower has an unsupported part.
    """
    require(
        type(tower) is VisionTransformer,
        f"has a {type(tower).__name__} as image tower, not open_clip's VisionTransformer",
    )
    require(tower.attn_pool is None, "pools its image tokens by attention")
    require(
        tower.pool_type == "tok",
        f"reads images by pooling {tower.pool_type!r}, not from a class token",
    )
    require(tower.proj is not None, "has no projection of its images")
    require(tower.conv1.in_channels == 3, f"reads images of {tower.conv1.in_channels} channels, not 3")
    positions = read_array(tower.positional_embedding)
    return Vit(
        image_size=read_pair(tuple(tower.image_size)),
        patch_size=read_pair(tuple(tower.patch_size)),
        patch=convert_patch(tower.conv1),
        patch_norm=None,
        prefix=read_array(tower.class_embedding)[None] + positions[:1],
        positions=positions[1:],
        norm_pre=None if isinstance(tower.ln_pre, nn.Identity) else read_norm(tower.ln_pre, "first norm"),
        blocks=read_blocks(tower.transformer, "image tower"),
        norm=read_norm(tower.ln_post, "final norm of its image tower"),
        head=Linear(np.ascontiguousarray(read_array(tower.proj).T), None),
        readout=1,
    )
