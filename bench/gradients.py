"""How much the images of a batch agree about where to go, by PyTorch's autograd.

PIZO's estimate has less variance than that of one shared direction by `‖Σ g_i‖² / Σ ‖g_i‖²`, g_i the gradient
that image i contributes (docs/pizo.md). Prints that ratio for batches of corrupted images, and what follows
from it: the expected cosine of one update with the gradient, with own directions and with a shared one.

    python bench/gradients.py BUNDLE IMAGES --weights model.safetensors --frost-textures FROST
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from fozo.engine.bundle import Bundle
from fozo.engine.model import FloatArray, SourceStatistics
from fozo.eval.domains import CLEAN, IMAGENET_C, generated, imagefolder
from fozo.eval.stream import shuffled

BLOCKS = range(1, 9)
WEIGHT = 0.4


def gradients(model: Any, images: torch.Tensor, source: SourceStatistics) -> FloatArray:
    """What each image contributes to the gradient of PIZO's loss at zero: `[N, V]`.

    Args:
        model: a timm VisionTransformer.
        images: normalised, `[N, 3, H, W]`.
        source: statistics of its features.
    """
    shape = (len(images), 2, 2, model.embed_dim)
    addends = {index: torch.zeros(shape, requires_grad=True) for index in BLOCKS}
    x = model.norm_pre(model._pos_embed(model.patch_embed(images)))
    features = []
    for index, block in enumerate(model.blocks):
        added = addends.get(index, torch.zeros(shape))
        inner = _normed(block.norm1, x, added[:, 0])
        features += [inner[:, 0]] if index else []
        x = x + block.ls1(block.attn(inner))
        x = x + block.ls2(block.mlp(_normed(block.norm2, x, added[:, 1])))
    features.append(model.norm(x)[:, 0])
    stacked = torch.stack(features, dim=1)
    distance = ((stacked.mean(0) - torch.from_numpy(source.mean)) ** 2).sum()
    distance = distance + ((stacked.std(0) - torch.from_numpy(source.std)) ** 2).sum()
    shifted = features[-1] - features[-1].mean(0).detach()
    entropy = torch.special.entr(model.head(shifted).softmax(1)).sum()
    loss = WEIGHT * distance * len(images) / 64 + entropy
    found = torch.autograd.grad(loss, list(addends.values()))
    return torch.stack(found, dim=1).flatten(1).double().numpy()


def _normed(norm: Any, x: torch.Tensor, added: torch.Tensor) -> torch.Tensor:
    plain = torch.nn.functional.layer_norm(x, norm.normalized_shape, None, None, norm.eps)
    return plain * (norm.weight + added[:, 0])[:, None] + (norm.bias + added[:, 1])[:, None]


def main() -> None:
    """Prints the table as Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("images", type=Path, help="clean images, one folder per class")
    parser.add_argument("--weights", required=True, help="of the bundle's model")
    parser.add_argument("--frost-textures", type=Path)
    parser.add_argument("--severity", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--corruptions", nargs="*", default=[*IMAGENET_C, CLEAN], metavar="NAME")
    options = parser.parse_args()
    manifest = Bundle.open(options.bundle).manifest
    source = Bundle.open(options.bundle).info("fp32").require_source("bench")
    model = timm.create_model(manifest.model, checkpoint_path=options.weights).eval().requires_grad_(False)
    mean, std = (np.array(model.pretrained_cfg[name], np.float32) for name in ("mean", "std"))
    clean = imagefolder(options.images, manifest, CLEAN)
    print("| domain | ‖Σ g‖² / Σ ‖g‖² | cosine, own | cosine, shared |\n|---|---:|---:|---:|")
    for domain in generated(clean, options.severity, options.corruptions, 0, options.frost_textures):
        chosen = shuffled(len(domain), domain.name, 0)[: options.batch_size]
        pixels = np.stack([domain.load(int(index)) for index in chosen]).astype(np.float32) / 255
        images = torch.from_numpy((pixels - mean) / std).permute(0, 3, 1, 2)
        each = gradients(model, images, source)
        ratio = float(np.square(each.sum(axis=0)).sum() / np.square(each).sum())
        cosines = [1 / np.sqrt(1 + (each.shape[1] - 1) / agree) for agree in (ratio, 1.0)]
        print(f"| {domain.name} | {ratio:.1f} | {cosines[0]:.3f} | {cosines[1]:.3f} |", flush=True)


if __name__ == "__main__":
    main()
