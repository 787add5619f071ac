"""BlackVIP's published decoder in PyTorch's own layers, with parameters from outside."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fozo.engine.model import FloatArray
from fozo.engine.runtime.image_decoder import DecoderLayout

torch = pytest.importorskip("torch", reason="the reference is PyTorch's layers")


def make_decoder(layout: DecoderLayout, parameters: FloatArray) -> Any:
    """Return the published decoder's layers with these parameters, the trigger beside them."""
    nn, transposed = torch.nn, torch.nn.ConvTranspose2d
    channels, first = layout.channels, min(64, layout.channels)
    body = nn.Sequential(
        *(transposed(channels, 64, 2, 2, 0, groups=first), transposed(64, 64, 1, bias=False)),
        *(nn.BatchNorm2d(64), nn.GELU()),
        *(transposed(64, 64, 2, 2, 0, groups=64), transposed(64, 32, 1, bias=False)),
        *(nn.BatchNorm2d(32), nn.GELU()),
        *(transposed(32, 32, 2, 2, 0, groups=32), transposed(32, 32, 1, bias=False)),
        *(nn.BatchNorm2d(32), nn.GELU()),
        *(transposed(32, 32, 2, 2, 0, groups=32), transposed(32, 16, 1, bias=False)),
        *(nn.BatchNorm2d(16), nn.GELU()),
        transposed(16, 3, 2, 2, 0, bias=False),
    )
    load_parameters(body, layout, parameters)
    return body


def load_parameters(body: Any, layout: DecoderLayout, parameters: FloatArray) -> None:
    values = torch.from_numpy(parameters[layout.trigger :].astype(np.float32))
    torch.nn.utils.vector_to_parameters(values, body.parameters())


def run_decoder(body: Any, layout: DecoderLayout, parameters: FloatArray, features: FloatArray) -> FloatArray:
    trigger = np.repeat(parameters[None, : layout.trigger], len(features), axis=0)
    cube = np.concatenate([features, trigger], axis=1).astype(np.float32)
    with torch.no_grad():
        pixels = body(torch.from_numpy(cube).reshape(len(cube), -1, *layout.grid))
    result: FloatArray = pixels.permute(0, 2, 3, 1).numpy()
    return result


def read_moments(body: Any) -> list[FloatArray]:
    norms = [layer for layer in body if hasattr(layer, "running_mean")]
    return [
        np.concatenate([getattr(norm, name).numpy() for norm in norms])
        for name in ("running_mean", "running_var")
    ]
