"""The exported graph against PyTorch: the same images and prompts through both, before it is kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..engine.errors import ExportError
from ..engine.model import FloatArray, ImageArray, ModelInfo
from ..engine.network import Network

BATCHES = (1, 2, 3, 17)
PROMPTS = (0, 3)
# Relative to the largest magnitude of the output: float32 through a few hundred operators.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Parity:
    """Largest absolute differences between the graph and PyTorch, over all cases that were run."""

    logits: float
    features: float


@torch.inference_mode()  # type: ignore[untyped-decorator, unused-ignore]
def eager_outputs(
    model: Any, images: ImageArray, prompts: FloatArray, mean: tuple[float, ...], std: tuple[float, ...]
) -> tuple[FloatArray, FloatArray]:
    """Logits `[N, K]` and features `[N, L, F]` from the model's own PyTorch modules (docs/bundle.md).

    Args:
        model: a timm VisionTransformer in eval mode.
        images: uint8 `[N, H, W, 3]`.
        prompts: float32 `[R, P, D]`, R in {1, N}.
        mean: per channel, of images scaled to 0..1.
        std: per channel, of images scaled to 0..1.
    """
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    pixels = (pixels - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)
    tokens = model._pos_embed(model.patch_embed(pixels))
    inserted = torch.from_numpy(prompts).expand(len(images), -1, -1)
    prefix = model.num_prefix_tokens
    tokens = model.norm_pre(torch.cat([tokens[:, :prefix], inserted, tokens[:, prefix:]], dim=1))
    readout = 2 if hasattr(model, "head_dist") else 1
    norms: list[nn.Module] = [*(block.norm1 for block in model.blocks[1:]), model.norm]
    features: list[Tensor] = []
    for block, norm in zip(model.blocks, norms, strict=True):
        tokens = block(tokens)
        features.append(norm(tokens[:, :readout]).flatten(1))
    logits = model.forward_head(model.norm(tokens))
    return logits.numpy(), torch.stack(features, dim=1).numpy()


def verify(
    model: nn.Module, graph: Path, info: ModelInfo, mean: tuple[float, ...], std: tuple[float, ...]
) -> Parity:
    """Runs graph and PyTorch on random images, batches of 1, 2, 3 and 17, without and with prompts.

    Raises:
        ExportError: a difference is larger than rounding explains, or the outputs are not finite.
    """
    generator = np.random.default_rng(0)
    worst = Parity(0.0, 0.0)
    with Network(graph, info, workers=1, micro_batch=max(BATCHES)) as network:
        for batch in BATCHES:
            images = generator.integers(0, 256, (batch, *network.image_size, 3), dtype=np.uint8)
            for count in PROMPTS:
                for shared in {1, batch}:
                    prompts = generator.normal(0, 0.5, (shared, count, info.width)).astype(np.float32)
                    expected = eager_outputs(model, images, prompts, mean, std)
                    found = network(images, prompts=prompts)
                    case = f"N = {batch}, P = {count}, R = {shared}"
                    worst = Parity(
                        max(worst.logits, _difference("logits", case, found.logits, expected[0])),
                        max(worst.features, _difference("features", case, found.features, expected[1])),
                    )
    return worst


def _difference(what: str, case: str, found: FloatArray, expected: FloatArray) -> float:
    """The largest absolute difference, if rounding explains it."""
    if not (np.isfinite(found).all() and np.isfinite(expected).all()):
        raise ExportError(
            f"the model answers random images with non-finite {what} at {case}; check its weights"
        )
    difference = float(np.abs(found - expected).max())
    if difference > TOLERANCE * max(1.0, float(np.abs(expected).max())):
        raise ExportError(
            f"the exported graph does not compute what PyTorch does: {what} differ by up to {difference:.3g} "
            f"at {case}; nothing was written, please report this model"
        )
    return difference
