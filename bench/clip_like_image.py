"""Image side of the CLIP-like model: a classifying ViT of timm as an image tower of open_clip.

The classifier's rows become the text embeddings that a text tower shall hit. Cosines know no lengths, so the
rows must have one length: a linear map of the features, the tower's projection, gives them that, and leaves
the logits as they were. Only the length of the image embedding changes, hence the softness of the
probabilities from image to image, and the bias is dropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from fozo.engine.model import FloatArray
from safetensors.torch import load_file


@dataclass(frozen=True)
class EqualRows:
    """A classifier whose rows have unit length, and the map of the features it belongs to.

    Attributes:
        rows: unit-length rows, float64 `[K, D]`.
        projection: float64 `[D, D]`; `features @ projection` are compared with the rows.
    """

    rows: FloatArray
    projection: FloatArray


def equalise_rows(weight: FloatArray) -> EqualRows:
    """Find the linear map after which all rows of a classifier have one length, and its inverse.

    With M = 1 + Σ c_k w_k w_kᵀ and B = M^½, the rows become w_k B and the features x B⁻¹, so that every
    logit x·w_k is as before. The squared lengths are w_kᵀ M w_k = ‖w_k‖² + Σ_j c_j (w_j·w_k)². That is a
    linear system in c.

    Args:
        weight: rows of the classifier, `[K, D]`.

    Raises:
        ValueError: no such map exists, because the lengths differ too much.
    """
    w = weight.astype(np.float64)
    products = w @ w.T
    squares = np.diag(products)
    factors = np.linalg.solve(products**2, squares.mean() - squares)
    values, vectors = np.linalg.eigh(np.eye(w.shape[1]) + (w.T * factors) @ w)
    if values[0] <= 0:
        raise ValueError(f"expected a positive definite map, found the eigenvalue {values[0]:.3g}")
    root = (vectors * np.sqrt(values)) @ vectors.T
    inverse = (vectors / np.sqrt(values)) @ vectors.T
    rows = w @ root
    return EqualRows(rows / np.linalg.norm(rows, axis=1, keepdims=True), inverse)


def load_classifier(name: str, weights: Path) -> Any:
    """Return timm's model with the weights of a file, in eval mode."""
    model = timm.create_model(name)
    model.load_state_dict(load_file(weights))
    return model.eval()


def describe_image_tower(model: Any) -> dict[str, Any]:
    """Return open_clip's configuration of a tower that computes what timm's model does before its head."""
    block = model.blocks[0]
    return {
        "layers": len(model.blocks),
        "width": model.embed_dim,
        "head_width": model.embed_dim // block.attn.num_heads,
        "mlp_ratio": block.mlp.fc1.out_features / model.embed_dim,
        "patch_size": model.patch_embed.patch_size[0],
        "image_size": model.patch_embed.img_size[0],
        "no_ln_pre": True,
        "norm_kwargs": {"eps": model.norm.eps},
    }


def convert_image_tower(model: Any, projection: FloatArray) -> dict[str, torch.Tensor]:
    """Return the weights of timm's model under open_clip's names, with the projection as the last of them.

    open_clip's patches have no bias; it is part of their position embeddings here.
    """
    source = model.state_dict()
    positions = source["pos_embed"][0].clone()
    positions[1:] += source["patch_embed.proj.bias"]
    target = {
        "conv1.weight": source["patch_embed.proj.weight"],
        "class_embedding": source["cls_token"][0, 0],
        "positional_embedding": positions,
        "ln_post.weight": source["norm.weight"],
        "ln_post.bias": source["norm.bias"],
        "proj": torch.from_numpy(projection).float(),
    }
    names = {
        "norm1": "ln_1",
        "norm2": "ln_2",
        "attn.qkv.": "attn.in_proj_",
        "attn.proj": "attn.out_proj",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
    }
    for name, tensor in source.items():
        if name.startswith("blocks."):
            for old, new in names.items():
                name = name.replace(old, new)
            target[name.replace("blocks.", "transformer.resblocks.")] = tensor
    return target
