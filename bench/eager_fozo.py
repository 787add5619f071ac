"""FOZO in eager PyTorch, as one would write it: the opponent of bench/step.py.

Inference mode, the whole batch at once, norms for features on the class token only, statistics and entropy
in PyTorch. It follows the same order of operations as the released method.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class EagerFozo:
    """FOZO with released constants on a timm VisionTransformer; `mean` and `std` are `[L, D]`."""

    def __init__(self, model: Any, mean: Tensor, std: Tensor, prompts: int = 3) -> None:
        self.model, self.mean, self.std = model, mean, std
        self.generator = torch.Generator().manual_seed(2000)
        self.prompts = 0.06 * (2 * torch.rand(1, prompts, model.embed_dim, generator=self.generator) - 1)
        self.epsilon, self.rate = 0.5, 0.08
        self.average: float | None = None
        self.center: Tensor | None = None

    @torch.inference_mode()
    def features(self, images: Tensor, prompts: Tensor) -> Tensor:
        """`[N, L, D]` of normalised images `[N, 3, H, W]`."""
        m = self.model
        x = m._pos_embed(m.patch_embed(images))
        x = torch.cat([x[:, :1], prompts.expand(len(x), -1, -1), x[:, 1:]], dim=1)
        norms = [*(block.norm1 for block in m.blocks[1:]), m.norm]
        collected = []
        for block, norm in zip(m.blocks, norms, strict=True):
            x = block(x)
            collected.append(norm(x[:, 0]))
        return torch.stack(collected, dim=1)

    @torch.inference_mode()
    def step(self, images: Tensor) -> Tensor:
        """Logits `[N, K]` of a batch, and one update of the prompts."""
        direction = torch.randn(self.prompts.shape, generator=self.generator)
        shift = None if self.center is None else self.mean[-1] - self.center
        halves = [
            self._half(images, self.prompts + sign * self.epsilon * direction, shift) for sign in (1, -1)
        ]
        losses = [half[1] for half in halves]
        slope = (losses[0] - losses[1]) / (2 * self.epsilon)
        loss = min(losses)
        self.average = loss if self.average is None else 0.9 * self.average + 0.1 * loss
        spike = loss > 1.05 * self.average
        self.epsilon = 0.5 if spike else max(0.2, 0.9 * self.epsilon)
        self.rate = 0.1 if spike else min(3.0, max(0.1, 0.7 * self.rate + 0.1))
        self.prompts = self.prompts - self.rate * slope * direction
        both = halves[0][2] + halves[1][2]
        self.center = both if self.center is None else 0.9 * self.center + 0.1 * both
        return halves[0 if losses[0] <= losses[1] else 1][0]

    def _half(self, images: Tensor, prompts: Tensor, shift: Tensor | None) -> tuple[Tensor, float, Tensor]:
        features = self.features(images, prompts)
        distance = ((features.std(0) - self.std) ** 2).sum() + ((features.mean(0) - self.mean) ** 2).sum()
        last = features[:, -1] if shift is None else features[:, -1] + shift
        logits = self.model.head(last)
        entropy = torch.special.entr(logits.softmax(1)).sum()
        return logits, float(0.4 * distance * len(images) / 64 + entropy), features[:, -1].mean(0)
