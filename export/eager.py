"""The opponent of `fozo bench --torch`: a timm model and FOZO in eager PyTorch, as one would write them.

Inference mode, norms for features on the class token only, statistics, entropy and loss in float32, in the
order of operations of the released method. Weights are random: the time of a step does not depend on them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import timm
import torch
from torch import Tensor, nn

from ..engine.bundle.bundle import Bundle
from ..engine.bundle.manifest import Manifest
from ..engine.errors import InputError
from ..engine.model import ImageArray
from .demo import DEMO_MODEL, demo_model

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
SOURCE_IMAGES = 4


def make_step(
    bundle: Bundle, images: ImageArray, *, method: str, precision: str, threads: int, part: int | None
) -> Callable[[], object]:
    """Return a function that makes one step on the images.

    Args:
        bundle: whose model is built, with random weights.
        images: uint8 `[N, H, W, 3]`; converted here and not in the step.
        method: `no_adapt`, or for vision transformers `fozo`.
        precision: `fp32` or `bf16`, of weights and inputs.
        threads: of PyTorch's kernels.
        part: images at a time; None takes the whole batch at once.

    Raises:
        InputError: timm does not know the model, or FOZO cannot be written for it.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = _plain_model(bundle.manifest, method).to(DTYPES[precision])
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float().div(127.5).sub(1).contiguous()
    pixels = pixels.to(DTYPES[precision])
    with torch.inference_mode():
        run = EagerFozo(model, part).step if method == "fozo" else partial(no_adapt, model, part=part)

    def step() -> Tensor:
        with torch.inference_mode():
            return run(pixels)

    return step


def no_adapt(model: Any, images: Tensor, *, part: int | None) -> Tensor:
    """Logits `[N, K]` of normalised images `[N, 3, H, W]`."""
    return torch.cat([model(some) for some in images.split(part or len(images))])


class EagerFozo:
    """FOZO with released constants on a timm VisionTransformer.

    Attributes:
        prompts: `[1, P, D]`, float32.
        mean, std: source statistics `[L, D]`, float32, of random images.
    """

    def __init__(self, model: Any, part: int | None = None, prompts: int = 3) -> None:
        """Starts a stream; `part` images are computed at a time, None is the whole batch."""
        self.model, self.part = model, part
        self.generator = torch.Generator().manual_seed(2000)
        self.prompts = 0.06 * (2 * torch.rand(1, prompts, model.embed_dim, generator=self.generator) - 1)
        self.epsilon, self.rate = 0.5, 0.08
        self.average: float | None = None
        self.center: Tensor | None = None
        self.mean, self.std = self._some_statistics()

    def features(self, images: Tensor, prompts: Tensor) -> Tensor:
        """`[N, L, D]`, in the model's precision, of normalised images `[N, 3, H, W]`."""
        prompts = prompts.to(images.dtype)
        parts = images.split(self.part or len(images))
        return torch.cat([self._features(some, prompts) for some in parts])

    def _features(self, images: Tensor, prompts: Tensor) -> Tensor:
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
        """Logits `[N, K]`, float32, of a batch, and one update of the prompts."""
        direction = torch.randn(self.prompts.shape, generator=self.generator)
        shift = None if self.center is None else self.mean[-1] - self.center
        halves = [
            self._half(images, self.prompts + sign * self.epsilon * direction, shift) for sign in (1, -1)
        ]
        losses = [half[1] for half in halves]
        slope = (losses[0] - losses[1]) / (2 * self.epsilon)
        self._advance(min(losses))
        self.prompts = self.prompts - self.rate * slope * direction
        both = halves[0][2] + halves[1][2]
        self.center = both if self.center is None else 0.9 * self.center + 0.1 * both
        return halves[0 if losses[0] <= losses[1] else 1][0]

    def _half(self, images: Tensor, prompts: Tensor, shift: Tensor | None) -> tuple[Tensor, float, Tensor]:
        """Logits, loss, and mean of the last feature at some prompts."""
        features = self.features(images, prompts).float()
        distance = ((features.mean(0) - self.mean) ** 2).sum()
        if len(features) > 1:  # one image has no standard deviation
            distance = distance + ((features.std(0) - self.std) ** 2).sum()
        last = features[:, -1] if shift is None else features[:, -1] + shift
        logits = self.model.head(last.to(images.dtype)).float()
        entropy = torch.special.entr(logits.softmax(1)).sum()
        return logits, float(0.4 * distance * len(images) / 64 + entropy), features[:, -1].mean(0)

    def _advance(self, loss: float) -> None:
        """The schedule of ε and the learning rate."""
        self.average = loss if self.average is None else 0.9 * self.average + 0.1 * loss
        spike = loss > 1.05 * self.average
        self.epsilon = 0.5 if spike else max(0.2, 0.9 * self.epsilon)
        self.rate = 0.1 if spike else min(3.0, max(0.1, 0.7 * self.rate + 0.1))

    def _some_statistics(self) -> tuple[Tensor, Tensor]:
        """Computed one image at a time, so that the peak of memory is that of the steps."""
        first = next(self.model.parameters())
        size = (SOURCE_IMAGES, 3, *self.model.patch_embed.img_size)
        images = (2 * torch.rand(size, generator=self.generator) - 1).to(first.dtype)
        no_prompts = torch.zeros(1, 0, self.model.embed_dim)
        features = torch.cat([self.features(image[None], no_prompts).float() for image in images])
        return features.mean(0), features.std(0)


def _plain_model(manifest: Manifest, method: str) -> Any:
    """The bundle's architecture with random weights, in eval mode, if the method can run on it."""
    name, prompted = manifest.model, "prompts" in manifest.tunables
    if name == DEMO_MODEL:
        return demo_model().eval()
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
