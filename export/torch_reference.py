"""Helpers for the PyTorch reference that an exported graph is compared with: pixels and module hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..engine.model import ImageArray
from .image_format import ImageFormat


def normalise_pixels(images: ImageArray, image_format: ImageFormat) -> Tensor:
    """Return images as a timm model reads them, float32 `[N, 3, H, W]`.

    Args:
        images: uint8 `[N, H, W, 3]`; copied, because PyTorch warns about arrays that cannot be written to.
        image_format: mean and standard deviation per channel.
    """
    pixels = torch.tensor(images).permute(0, 3, 1, 2).float() / 255
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
