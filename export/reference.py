"""What the PyTorch answers that a graph is checked against have in common: pixels, and replaced modules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..engine.model import ImageArray


def normalised_pixels(images: ImageArray, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """What a timm model reads, float32 `[N, 3, H, W]`, of images uint8 `[N, H, W, 3]`.

    Args:
        images: they are copied, because PyTorch warns of arrays that cannot be written to.
        mean: per channel, of images scaled to 0..1.
        std: per channel, of images scaled to 0..1.
    """
    pixels = torch.tensor(images).permute(0, 3, 1, 2).float() / 255
    return (pixels - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)


@contextmanager
def replaced_outputs(model: nn.Module, hooks: Mapping[str, Callable[..., Tensor]]) -> Iterator[None]:
    """Within the block, the named modules answer what these forward hooks return."""
    handles = [model.get_submodule(name).register_forward_hook(hook) for name, hook in hooks.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
