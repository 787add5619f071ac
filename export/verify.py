"""The exported graph against PyTorch: the same images and prompts through both, before it is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from ..engine.errors import ExportError
from ..engine.model import FloatArray, ImageArray, ModelInfo, Outputs, Tunables
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
    embedding: float

    def worst(self, other: Parity) -> Parity:
        """The larger of each."""
        pairs = zip(astuple(self), astuple(other), strict=True)
        return Parity(*(max(pair) for pair in pairs))


@torch.inference_mode()  # type: ignore[untyped-decorator, unused-ignore]
def eager_outputs(
    model: Any,
    images: ImageArray,
    tunables: Tunables,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    norms: Sequence[str] = (),
) -> Outputs:
    """What the model's own PyTorch modules answer, as docs/bundle.md defines it.

    Args:
        model: a timm VisionTransformer in eval mode.
        images: uint8 `[N, H, W, 3]`.
        tunables: `prompts` float32 `[R, P, D]` and `norms` float32 `[S, M, 2, D]`, R and S in {1, N}.
        mean: per channel, of images scaled to 0..1.
        std: per channel, of images scaled to 0..1.
        norms: names of the M modules that `norms` adds to.
    """
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    pixels = (pixels - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)
    with _tuned_norms(model, norms, tunables.get("norms")):
        tokens = model._pos_embed(model.patch_embed(pixels))
        prefix = model.num_prefix_tokens
        patches = model.norm_pre(tokens)[:, prefix:]
        if "prompts" in tunables:
            inserted = torch.from_numpy(tunables["prompts"]).expand(len(images), -1, -1)
            tokens = torch.cat([tokens[:, :prefix], inserted, tokens[:, prefix:]], dim=1)
        tokens = model.norm_pre(tokens)
        readout = 2 if hasattr(model, "head_dist") else 1
        after: list[nn.Module] = [*(block.norm1 for block in model.blocks[1:]), model.norm]
        features: list[Tensor] = []
        for block, norm in zip(model.blocks, after, strict=True):
            tokens = block(tokens)
            features.append(norm(tokens[:, :readout]).flatten(1))
        logits = model.forward_head(model.norm(tokens))
    moments = torch.stack([patches.mean(1), patches.var(1, unbiased=False)], dim=1)
    return Outputs(logits.numpy(), torch.stack(features, dim=1).numpy(), moments.numpy())


@contextmanager
def _tuned_norms(model: Any, names: Sequence[str], addends: FloatArray | None) -> Iterator[None]:
    """Within the block, the named LayerNorms have these addends `[S, M, 2, D]` on gain and bias."""

    def hook(index: int) -> Callable[..., Tensor]:
        assert addends is not None
        gain, bias = torch.from_numpy(addends[:, index, :, None]).unbind(1)

        def replaced(norm: Any, inputs: tuple[Tensor], output: Tensor) -> Tensor:
            plain = F.layer_norm(inputs[0], norm.normalized_shape, None, None, norm.eps)
            return plain * (norm.weight + gain) + (norm.bias + bias)

        return replaced

    hooks = [
        model.get_submodule(name).register_forward_hook(hook(index))
        for index, name in enumerate(names if addends is not None else ())
    ]
    try:
        yield
    finally:
        for each in hooks:
            each.remove()


def verify(
    model: nn.Module, graph: Path, info: ModelInfo, mean: tuple[float, ...], std: tuple[float, ...]
) -> Parity:
    """Runs graph and PyTorch on random images, batches of 1, 2, 3 and 17, without and with tunables.

    Raises:
        ExportError: a difference is larger than rounding explains, or the outputs are not finite.
    """
    generator = np.random.default_rng(0)
    worst = Parity(0.0, 0.0, 0.0)
    with Network(graph, info, workers=1, micro_batch=max(BATCHES)) as network:
        for batch in BATCHES:
            images = generator.integers(0, 256, (batch, *network.image_size, 3), dtype=np.uint8)
            for count in PROMPTS:
                for shared in {1, batch}:
                    tunables = _some_tunables(info, shared, count, generator)
                    expected = eager_outputs(model, images, tunables, mean, std, tuple(info.norms))
                    case = f"N = {batch}, P = {count}, R = {shared}"
                    worst = worst.worst(_parity(network(images, **tunables), expected, case))
    return worst


def _some_tunables(
    info: ModelInfo, count: int, prompts: int, generator: np.random.Generator
) -> dict[str, FloatArray]:
    """Random prompts, and where there are any also random addends to the norms."""
    tunables = {"prompts": generator.normal(0, 0.5, (count, prompts, info.width)).astype(np.float32)}
    if prompts and info.norms:
        shape = (count, len(info.norms), 2, info.width)
        tunables["norms"] = generator.normal(0, 0.1, shape).astype(np.float32)
    return tunables


def _parity(found: Outputs, expected: Outputs, case: str) -> Parity:
    assert found.embedding is not None and expected.embedding is not None
    return Parity(
        _difference("logits", case, found.logits, expected.logits),
        _difference("features", case, found.features, expected.features),
        _difference("embedding moments", case, found.embedding, expected.embedding),
    )


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
