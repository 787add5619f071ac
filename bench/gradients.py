"""How much the images of a batch agree about where to go, by PyTorch's autograd.

PIZO's estimate has less variance than that of one shared direction by `‖Σ g_i‖² / Σ ‖g_i‖²`, g_i the gradient
that image i contributes (docs/pizo.md). Prints that ratio for batches of corrupted images, and what follows
from it: the length of the gradient by that of an estimate, with own directions and with a shared one. Then,
of each part of the loss, its ratio and the cosine of its gradient with the whole one.

    python bench/gradients.py BUNDLE IMAGES --weights model.safetensors --frost-textures FROST
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.model import FloatArray, SourceStatistics
from fozo.eval.datasets.corruption_names import CLEAN, IMAGENET_C
from fozo.eval.datasets.domain import Domain
from fozo.eval.datasets.generated_domains import generate_domains
from fozo.eval.datasets.image_folder import load_image_folder
from fozo.eval.streaming.stream import shuffle_order

BLOCKS = range(1, 9)
WEIGHT = 0.4


def parser(description: str | None, corruptions: Sequence[str]) -> argparse.ArgumentParser:
    """What the command line says of the model and of the domains."""
    found = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    found.add_argument("bundle", type=Path)
    found.add_argument("images", type=Path, help="clean images, one folder per class")
    found.add_argument("--weights", required=True, help="of the bundle's model")
    found.add_argument("--frost-textures", type=Path)
    found.add_argument("--severity", type=int, default=5)
    found.add_argument("--corruptions", nargs="*", default=corruptions, metavar="NAME")
    return found


def read(options: argparse.Namespace) -> tuple[Any, SourceStatistics, list[Domain]]:
    """The timm model of a bundle, the statistics of its features on clean images, and the domains."""
    bundle = Bundle.open(options.bundle)
    model = timm.create_model(bundle.manifest.model, checkpoint_path=options.weights)
    source = bundle.info("fp32").require_source("bench")
    clean = load_image_folder(options.images, bundle.manifest, CLEAN)
    domains = generate_domains(clean, options.severity, options.corruptions, 0, options.frost_textures)
    return model.eval().requires_grad_(False), source, domains


def pixels(model: Any, domain: Domain, chosen: Sequence[int]) -> torch.Tensor:
    """Some images of a domain as the model reads them, `[N, 3, H, W]`."""
    mean, std = (np.array(model.pretrained_cfg[name], np.float32) for name in ("mean", "std"))
    loaded = np.stack([domain.load(int(index)) for index in chosen]).astype(np.float32) / 255
    return torch.from_numpy((loaded - mean) / std).permute(0, 3, 1, 2)


def features(model: Any, images: torch.Tensor, addends: torch.Tensor) -> torch.Tensor:
    """Features `[N, L, F]` with `addends` `[S, M, 2, D]` on the norms of `BLOCKS`, S in {1, N}."""
    added = dict(zip(BLOCKS, addends.split(2, dim=1), strict=True))
    none = torch.zeros(1, 2, 2, model.embed_dim)
    x = model.norm_pre(model._pos_embed(model.patch_embed(images)))
    found = []
    for index, block in enumerate(model.blocks):
        first, second = added.get(index, none).unbind(1)
        inner = _normed(block.norm1, x, first)
        found += [inner[:, 0]] if index else []
        x = x + block.ls1(block.attn(inner))
        x = x + block.ls2(block.mlp(_normed(block.norm2, x, second)))
    return torch.stack([*found, model.norm(x)[:, 0]], dim=1)


def _normed(norm: Any, x: torch.Tensor, added: torch.Tensor) -> torch.Tensor:
    plain = torch.nn.functional.layer_norm(x, norm.normalized_shape, None, None, norm.eps)
    return plain * (norm.weight + added[:, 0])[:, None] + (norm.bias + added[:, 1])[:, None]


def shifted_logits(model: Any, found: torch.Tensor) -> torch.Tensor:
    """Logits `[N, K]` of features, shifted to the origin by the mean of the batch."""
    logits: torch.Tensor = model.head(found[:, -1] - found[:, -1].mean(0).detach())
    return logits


def parts(model: Any, found: torch.Tensor, source: SourceStatistics) -> dict[str, torch.Tensor]:
    """What PIZO's loss of a batch is the sum of."""
    weight = WEIGHT * len(found) / 64
    return {
        "means": weight * ((found.mean(0) - torch.from_numpy(source.mean)) ** 2).sum(),
        "standard deviations": weight * ((found.std(0) - torch.from_numpy(source.std)) ** 2).sum(),
        "entropy": torch.special.entr(shifted_logits(model, found).softmax(1)).sum(),
    }


def loss(model: Any, found: torch.Tensor, source: SourceStatistics) -> torch.Tensor:
    """PIZO's loss of a batch."""
    return torch.stack(list(parts(model, found, source).values())).sum()


def gradients(model: Any, images: torch.Tensor, source: SourceStatistics) -> dict[str, FloatArray]:
    """What each image contributes to the gradient of each part of the loss at zero: `[N, V]`."""
    addends = torch.zeros(len(images), 2 * len(BLOCKS), 2, model.embed_dim, requires_grad=True)
    losses = parts(model, features(model, images, addends), source)
    return {
        name: torch.autograd.grad(value, addends, retain_graph=True)[0].flatten(1).double().numpy()
        for name, value in losses.items()
    }


def agreement(each: FloatArray) -> float:
    """`‖Σ g_i‖² / Σ ‖g_i‖²` of `[N, V]`: from 0 to N, if all are the same."""
    return float(np.square(each.sum(axis=0)).sum() / np.square(each).sum())


def signal(each: FloatArray, agree: float) -> float:
    """The length of the gradient by the root mean square of that of an estimate."""
    return float(1 / np.sqrt(1 + (each.shape[1] - 1) / agree))


def cosine(left: FloatArray, right: FloatArray) -> float:
    """Of the sums of two `[N, V]` over images."""
    a, b = left.sum(axis=0), right.sum(axis=0)
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def main() -> None:
    """Prints two tables as Markdown: of the whole loss, and of its parts."""
    line = parser(__doc__, [*IMAGENET_C, CLEAN])
    line.add_argument("--batch-size", type=int, default=64)
    options = line.parse_args()
    model, source, domains = read(options)
    whole = ["| domain | ‖Σ g‖² / Σ ‖g‖² | signal, own | signal, shared |", "|---|---:|---:|---:|"]
    split = ["| domain | means | standard deviations | entropy | without entropy |", "|---|---|---|---|---:|"]
    for domain in domains:
        chosen = shuffle_order(len(domain), domain.name, 0)[: options.batch_size]
        found = gradients(model, pixels(model, domain, chosen), source)
        total = np.sum(list(found.values()), axis=0)
        own, shared = signal(total, agreement(total)), signal(total, 1.0)
        whole.append(f"| {domain.name} | {agreement(total):.1f} | {own:.3f} | {shared:.3f} |")
        cells = [f"{agreement(each):.1f}, {cosine(each, total):.2f}" for each in found.values()]
        rest = total - found["entropy"]
        cells.append(f"{signal(rest, agreement(rest)) * cosine(rest, total):.3f}")
        split.append(f"| {domain.name} | {' | '.join(cells)} |")
    print("\n".join([*whole, "", *split]))


if __name__ == "__main__":
    main()
