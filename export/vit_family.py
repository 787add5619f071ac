"""Vision transformers, as the exporter sees them: graph, facts, and PyTorch's answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from ..engine.model import FloatArray, ImageArray, Outputs, Tunables
from .graph import block_norms, build_graph
from .reference import normalised_pixels, replaced_outputs
from .vit import read_vit

PROMPTS = (0, 3)


class VitFamily:
    """A class-token vision transformer.

    Attributes:
        checked: what `cases` covers, in words.
    """

    checked = f"P = {', '.join(map(str, PROMPTS))}"

    def __init__(self, model: Any, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        """Reads a timm model; `mean` and `std` are per channel, of images scaled to 0..1.

        Raises:
            ExportError: it is not a class-token VisionTransformer, or has a part that is not understood.
        """
        self._model, self._mean, self._std = model, mean, std
        self._vit = read_vit(model)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images it reads, in pixels."""
        return self._vit.image_size

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return len(self._vit.blocks)

    @property
    def head(self) -> tuple[FloatArray, FloatArray]:
        """Weight `[K, F]` and bias `[K]` of the classifier."""
        return self._vit.head.weight, self._vit.head_bias

    def norms(self, blocks: Sequence[int] | None) -> dict[str, int]:
        """Both norms of some blocks, or of all."""
        return dict.fromkeys(block_norms(self._vit, blocks), self._vit.width)

    def facts(self, norms: Mapping[str, int]) -> dict[str, Any]:
        """What the manifest says of the model; prompts start as those of visual prompt tuning do."""
        vit = self._vit
        tunables: dict[str, tuple[str | int, ...]] = {"prompts": ("R", "P", vit.width)}
        if norms:
            tunables["norms"] = ("S", len(norms), 2, vit.width)
        return {
            "layers": len(vit.blocks),
            "width": vit.width,
            "tokens": vit.tokens,
            "feature_width": vit.readout * vit.width,
            "prompt_bound": float(np.sqrt(6 / (3 * vit.patch_size[0] * vit.patch_size[1] + vit.width))),
            "tunables": tunables,
        }

    def graph(self, norms: Mapping[str, int]) -> onnx.ModelProto:
        """The model as a graph whose norms can be tuned."""
        return build_graph(self._vit, self._mean, self._std, tuple(norms))

    def cases(
        self, batch: int, norms: Mapping[str, int], generator: np.random.Generator
    ) -> Iterator[tuple[str, dict[str, FloatArray]]]:
        """Without and with prompts, for the batch and for each image; with prompts also addends to norms."""
        width = self._vit.width
        for prompts in PROMPTS:
            for count in sorted({1, batch}):
                inserted = generator.normal(0, 0.5, (count, prompts, width))
                tunables = {"prompts": inserted.astype(np.float32)}
                if prompts and norms:
                    addends = generator.normal(0, 0.1, (count, len(norms), 2, width))
                    tunables["norms"] = addends.astype(np.float32)
                yield f"P = {prompts}, R = {count}", tunables

    @torch.inference_mode()  # type: ignore[untyped-decorator, unused-ignore]
    def reference(self, images: ImageArray, tunables: Tunables, norms: Mapping[str, int]) -> Outputs:
        """What the model's own PyTorch modules answer, as docs/bundle.md defines it.

        Args:
            images: uint8 `[N, H, W, 3]`.
            tunables: `prompts` float32 `[R, P, D]` and `norms` float32 `[S, M, 2, D]`, R and S in {1, N}.
            norms: the M modules that `norms` adds to.
        """
        model = self._model
        pixels = normalised_pixels(images, self._mean, self._std)
        with replaced_outputs(model, _tuned_norms(norms, tunables.get("norms"))):
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


def _tuned_norms(norms: Iterable[str], addends: FloatArray | None) -> dict[str, Callable[..., Tensor]]:
    """What the named LayerNorms answer with addends `[S, M, 2, D]` on gain and bias; none without addends."""

    def hook(parameters: Tensor) -> Callable[..., Tensor]:
        gain, bias = parameters[:, :, None].unbind(1)

        def replaced(norm: Any, inputs: tuple[Tensor], output: Tensor) -> Tensor:
            plain = F.layer_norm(inputs[0], norm.normalized_shape, None, None, norm.eps)
            return plain * (norm.weight + gain) + (norm.bias + bias)

        return replaced

    if addends is None:
        return {}
    each = torch.from_numpy(addends).unbind(1)
    return {name: hook(parameters) for name, parameters in zip(norms, each, strict=True)}
