"""Comparison of `fozo bench --torch`: a timm model and FOZO in plain eager PyTorch.

It runs in inference mode and normalises the class token only. Statistics, entropy and loss are float32, in
the order of operations of the released method. Weights are random: no time depends on them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import timm
import torch
from torch import Tensor, nn

from ..data.demo import DEMO_MODEL
from ..engine.bundle.bundle import Bundle
from ..engine.bundle.manifest import Manifest
from ..engine.errors import InputError
from ..engine.model import PROMPTS, ImageArray
from .demo_model import create_demo_model

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
SOURCE_IMAGES = 4


def make_step(
    bundle: Bundle, images: ImageArray, *, method: str, precision: str, threads: int, chunk_size: int | None
) -> Callable[[], object]:
    """Return a function that makes one step on the images.

    Args:
        bundle: its model is built, with random weights.
        images: uint8 `[N, H, W, 3]`; converted once, not in every step.
        method: `no_adapt`, or for vision transformers `fozo`.
        precision: `fp32` or `bf16`, of weights and inputs.
        threads: number of threads of PyTorch's kernels.
        chunk_size: images per forward; None computes the batch in one.

    Raises:
        InputError: timm does not know the model, or FOZO cannot be written for it.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = _create_model(bundle.manifest, method).to(DTYPES[precision])
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float().div(127.5).sub(1).contiguous()
    pixels = pixels.to(DTYPES[precision])
    with torch.inference_mode():
        run = (
            EagerFozo(model, chunk_size).step
            if method == "fozo"
            else partial(predict, model, chunk_size=chunk_size)
        )

    def step() -> Tensor:
        with torch.inference_mode():
            return run(pixels)

    return step


def predict(model: Any, images: Tensor, *, chunk_size: int | None) -> Tensor:
    """Return logits `[N, K]` of normalised images `[N, 3, H, W]`."""
    return torch.cat([model(chunk) for chunk in images.split(chunk_size or len(images))])


class EagerFozo:
    """FOZO with its released constants, on a timm VisionTransformer.

    Attributes:
        prompts: `[1, P, D]`, float32.
        mean, std: source statistics `[L, D]`, float32, of random images.
    """

    def __init__(self, model: Any, chunk_size: int | None = None, prompts: int = 3) -> None:
        """Start a stream with images in chunks, or in one where `chunk_size` is None."""
        self.model, self.chunk_size = model, chunk_size
        self.generator = torch.Generator().manual_seed(2000)
        self.prompts = 0.06 * (2 * torch.rand(1, prompts, model.embed_dim, generator=self.generator) - 1)
        self.epsilon, self.learning_rate = 0.5, 0.08
        self.average_loss: float | None = None
        self.center: Tensor | None = None
        self.mean, self.std = self._compute_source_statistics()

    def compute_features(self, images: Tensor, prompts: Tensor) -> Tensor:
        """Return features `[N, L, D]`, in the model's precision, of normalised images `[N, 3, H, W]`."""
        prompts = prompts.to(images.dtype)
        chunks = images.split(self.chunk_size or len(images))
        return torch.cat([self._compute_chunk_features(chunk, prompts) for chunk in chunks])

    def _compute_chunk_features(self, images: Tensor, prompts: Tensor) -> Tensor:
        m = self.model
        x = m.norm_pre(m._pos_embed(m.patch_embed(images)))
        x = torch.cat([x[:, :1], prompts.expand(len(x), -1, -1), x[:, 1:]], dim=1)
        norms = [*(block.norm1 for block in m.blocks[1:]), m.norm]
        collected = []
        for block, norm in zip(m.blocks, norms, strict=True):
            x = block(x)
            collected.append(norm(x[:, 0]))
        return torch.stack(collected, dim=1)

    def step(self, images: Tensor) -> Tensor:
        """Update the prompts once and return the logits `[N, K]`, float32, of the batch."""
        direction = torch.randn(self.prompts.shape, generator=self.generator)
        shift = None if self.center is None else self.mean[-1] - self.center
        candidates = [
            self._evaluate(images, self.prompts + sign * self.epsilon * direction, shift) for sign in (1, -1)
        ]
        losses = [loss for _, loss, _ in candidates]
        slope = (losses[0] - losses[1]) / (2 * self.epsilon)
        self._update_schedule(min(losses))
        self.prompts = self.prompts - self.learning_rate * slope * direction
        means = candidates[0][2] + candidates[1][2]
        self.center = means if self.center is None else 0.9 * self.center + 0.1 * means
        return candidates[0 if losses[0] <= losses[1] else 1][0]

    def _evaluate(
        self, images: Tensor, prompts: Tensor, shift: Tensor | None
    ) -> tuple[Tensor, float, Tensor]:
        """Return logits, loss, and mean of the last feature with these prompts."""
        features = self.compute_features(images, prompts).float()
        distance = ((features.mean(0) - self.mean) ** 2).sum()
        if len(features) > 1:  # one image has no standard deviation
            distance = distance + ((features.std(0) - self.std) ** 2).sum()
        last = features[:, -1] if shift is None else features[:, -1] + shift
        logits = self.model.head(last.to(images.dtype)).float()
        entropy = torch.special.entr(logits.softmax(1)).sum()
        return logits, float(0.4 * distance * len(images) / 64 + entropy), features[:, -1].mean(0)

    def _update_schedule(self, loss: float) -> None:
        """Update ε and the learning rate after a step."""
        self.average_loss = loss if self.average_loss is None else 0.9 * self.average_loss + 0.1 * loss
        spike = loss > 1.05 * self.average_loss
        self.epsilon = 0.5 if spike else max(0.2, 0.9 * self.epsilon)
        self.learning_rate = 0.1 if spike else min(3.0, max(0.1, 0.7 * self.learning_rate + 0.1))

    def _compute_source_statistics(self) -> tuple[Tensor, Tensor]:
        """Compute them one image at a time, so that steps decide the peak of memory."""
        parameter = next(self.model.parameters())
        size = (SOURCE_IMAGES, 3, *self.model.patch_embed.img_size)
        images = (2 * torch.rand(size, generator=self.generator) - 1).to(parameter.dtype)
        no_prompts = torch.zeros(1, 0, self.model.embed_dim)
        features = torch.cat([self.compute_features(image[None], no_prompts).float() for image in images])
        return features.mean(0), features.std(0)


def _create_model(manifest: Manifest, method: str) -> Any:
    """Return the bundle's architecture with random weights, in eval mode, if the method can run on it."""
    name, prompted = manifest.model, PROMPTS in manifest.tunables
    if name == DEMO_MODEL:
        return create_demo_model().eval()
    if not timm.is_model(name):
        raise InputError(
            f"timm {timm.__version__} has no model {name!r}, so PyTorch cannot be compared on this bundle; "
            "leave --torch out"
        )
    if method == "fozo" and not prompted:
        raise InputError(f"{name} has no prompts, which FOZO needs; leave -m fozo out")
    size = {"img_size": manifest.preprocessing.size} if prompted else {}
    model: Any = timm.create_model(name, pretrained=False, num_classes=manifest.classes, **size)
    if method == "fozo" and not (
        isinstance(model.head, nn.Linear) and manifest.feature_width == manifest.width
    ):
        raise InputError(
            "FOZO in PyTorch is written for models with a linear head on the class token, and "
            f"{name} has another head; leave --torch or -m fozo out"
        )
    return model.eval()
