"""Measure how much the images of a batch agree about the gradient of PIZO's loss, by PyTorch's autograd.

`agreement` is r = ‖Σ γ_i‖² / Σ ‖γ_i‖², γ_i being the gradient that image i contributes. It is the factor by
which one direction per image lowers the variance of the estimate (docs/pizo.md). `signal` is the length of
the gradient divided by the root mean square of the length of an estimate with a direction per image;
`shared_signal` is the same with one direction for the batch.

    python bench/agreement.py BUNDLE IMAGES --weights model.safetensors --out pizo-agreement.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fozo
import numpy as np
import timm
import torch
from fozo.engine.model import FloatArray, SourceStatistics
from fozo.evaluation import DatasetRequest, Domain, open_dataset, shuffle_order
from measuring import describe_machine, now

BLOCKS = range(1, 9)  # whose norms PIZO tunes
DISCREPANCY_WEIGHT = 0.4
BATCH_SIZE = 64


def main() -> None:
    """Write the agreement of a batch of each domain as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path, help="of a timm VisionTransformer")
    parser.add_argument("images", type=Path, help="clean images, one folder per class")
    parser.add_argument("--weights", required=True, help="of the bundle's model")
    parser.add_argument("--frost-textures", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    bundle = fozo.Bundle.open(options.bundle)
    model = timm.create_model(bundle.manifest.model, checkpoint_path=options.weights)
    model.eval().requires_grad_(False)
    source = bundle.info("fp32").require_source("pizo")
    domains = {
        domain.name: measure_agreement(model, domain, source)
        for domain in open_domains(bundle, options.images, options.frost_textures)
    }
    document = {"created": now(), **describe_machine(), "model": bundle.manifest.model, "domains": domains}
    options.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def measure_agreement(model: Any, domain: Domain, source: SourceStatistics) -> dict[str, float]:
    """Return the figures of the first batch of a domain."""
    order = shuffle_order(len(domain), domain.name, seed=0)[:BATCH_SIZE]
    gradients = compute_gradients(model, load_pixels(model, domain, [int(index) for index in order]), source)
    agreement = float(np.square(gradients.sum(axis=0)).sum() / np.square(gradients).sum())
    values = gradients.shape[1]
    return {
        "agreement": agreement,
        "signal": float(1 / np.sqrt(1 + (values - 1) / agreement)),
        "shared_signal": float(1 / np.sqrt(values)),
    }


def compute_gradients(model: Any, images: torch.Tensor, source: SourceStatistics) -> FloatArray:
    """Return the gradient that each image contributes at unchanged norms, `[N, V]`."""
    addends = torch.zeros(len(images), 2 * len(BLOCKS), 2, model.embed_dim, requires_grad=True)
    loss = compute_loss(model, compute_features(model, images, addends), source)
    gradients: FloatArray = torch.autograd.grad(loss, addends)[0].flatten(1).double().numpy()
    return gradients


def compute_loss(model: Any, features: torch.Tensor, source: SourceStatistics) -> torch.Tensor:
    """Return PIZO's loss of a batch of features `[N, L, F]`; the shift of the logits counts as constant."""
    means = ((features.mean(0) - torch.from_numpy(source.mean)) ** 2).sum()
    stds = ((features.std(0) - torch.from_numpy(source.std)) ** 2).sum()
    logits = model.head(features[:, -1] - features[:, -1].mean(0).detach())
    entropies = torch.special.entr(logits.softmax(1)).sum()
    return DISCREPANCY_WEIGHT * len(features) / 64 * (means + stds) + entropies


def compute_features(model: Any, images: torch.Tensor, addends: torch.Tensor) -> torch.Tensor:
    """Return features `[N, L, F]` with addends `[N, M, 2, D]` on the gains and biases of `BLOCKS`."""
    by_block = dict(zip(BLOCKS, addends.split(2, dim=1), strict=True))
    zeros = torch.zeros(1, 2, 2, model.embed_dim)
    tokens = model.norm_pre(model._pos_embed(model.patch_embed(images)))
    features = []
    for index, block in enumerate(model.blocks):
        first, second = by_block.get(index, zeros).unbind(1)
        inner = apply_norm(block.norm1, tokens, first)
        features += [inner[:, 0]] if index else []
        tokens = tokens + block.ls1(block.attn(inner))
        tokens = tokens + block.ls2(block.mlp(apply_norm(block.norm2, tokens, second)))
    return torch.stack([*features, model.norm(tokens)[:, 0]], dim=1)


def apply_norm(norm: Any, tokens: torch.Tensor, addends: torch.Tensor) -> torch.Tensor:
    """Return normalised tokens, with addends `[N, 2, D]` on gain and bias."""
    plain = torch.nn.functional.layer_norm(tokens, norm.normalized_shape, None, None, norm.eps)
    return plain * (norm.weight + addends[:, 0])[:, None] + (norm.bias + addends[:, 1])[:, None]


def load_pixels(model: Any, domain: Domain, indices: Sequence[int]) -> torch.Tensor:
    """Return images of a domain as the model reads them, `[N, 3, H, W]`."""
    mean, std = (np.array(model.pretrained_cfg[name], np.float32) for name in ("mean", "std"))
    images = np.stack([domain.load(index) for index in indices]).astype(np.float32) / 255
    return torch.from_numpy((images - mean) / std).permute(0, 3, 1, 2)


def open_domains(bundle: fozo.Bundle, images: Path, frost_textures: Path | None) -> list[Domain]:
    """Return generated corruptions at severity 5, and clean images."""
    request = DatasetRequest("imagenet-c", generate_from=images, frost_textures=frost_textures)
    return open_dataset(request, bundle.manifest)[1]


if __name__ == "__main__":
    main()
