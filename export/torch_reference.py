"""Helpers for the PyTorch reference that an exported graph is compared with: pixels and module hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from ..engine.model import ImageArray
from .image_format import ImageFormat


def normalise_pixels(images: ImageArray, image_format: ImageFormat, addend: Tensor | None = None) -> Tensor:
    """Return images as a timm model reads them, float32 `[N, 3, H, W]`.

    Args:
        images: uint8 `[N, H, W, 3]`; copied, because PyTorch warns about arrays that cannot be written to.
        image_format: mean and standard deviation per channel.
        addend: float32 `[1 or N, H, W, 3]`, added to images in 0..1, which are clipped to that range.
    """
    pixels = torch.tensor(images).permute(0, 3, 1, 2).float() / 255
    if addend is not None:
        pixels = (pixels + addend.permute(0, 3, 1, 2)).clamp(0, 1)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (image_format.mean, image_format.std))
    return (pixels - mean) / std


@contextmanager
def replace_outputs(model: nn.Module, hooks: Mapping[str, Callable[..., Tensor]]) -> Iterator[None]:
    """Replace the outputs of the named modules by what these forward hooks return, within the block."""
    handles = [model.get_submodule(name).register_forward_hook(hook) for name, hook in hooks.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def make_norm_hooks(norms: Iterable[str], addends: Tensor | None) -> dict[str, Callable[..., Tensor]]:
    """Return forward hooks of LayerNorms that add `[S, M, 2, D]` to gain and bias; none without addends."""

    def make_hook(addend: Tensor) -> Callable[..., Tensor]:
        gain, bias = addend[:, :, None].unbind(1)

        def compute_output(norm: Any, inputs: tuple[Tensor], output: Tensor) -> Tensor:
            normalised = F.layer_norm(inputs[0], norm.normalized_shape, None, None, norm.eps)
            # Norms may lack gain or bias; a gain of 1 and a bias of 0 stand for these.
            total_gain = gain + (1.0 if norm.weight is None else norm.weight)
            total_bias = bias + (0.0 if norm.bias is None else norm.bias)
            return normalised * total_gain + total_bias

        return compute_output

    if addends is None:
        return {}
    norm_addends = addends.unbind(1)
    return {name: make_hook(addend) for name, addend in zip(norms, norm_addends, strict=True)}
