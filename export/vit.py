"""Family of the class-token vision transformers: graph, manifest fields and PyTorch reference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from ..engine.model import NORMS, PIXELS, PROMPTS, FloatArray, ImageArray, Outputs, Slopes, Tunables
from .image_format import ImageFormat
from .torch_reference import make_norm_hooks, normalise_pixels, replace_outputs
from .vit_graph import build_vit_graph, list_vit_activations, list_vit_tunables, select_vit_norms
from .vit_model import Vit, read_vit

PROMPT_COUNTS = (0, 3)


class VitFamily:
    """A class-token vision transformer.

    Attributes:
        case_summary: the cases of `draw_cases`, in words.
    """

    case_summary = f"P = {', '.join(map(str, PROMPT_COUNTS))}"

    def __init__(self, model: Any, image_format: ImageFormat) -> None:
        """Read a timm model; the size of the images is that of its position embedding.

        Raises:
            ExportError: it is not a class-token VisionTransformer, or has an unsupported part.
        """
        self._model, self._format = model, image_format
        self._vit = self._read(model)

    def _read(self, model: Any) -> Vit:
        return read_vit(model)

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

    def select_norms(self, blocks: Sequence[int] | None) -> dict[str, int]:
        """Return both norms of some blocks, or of all if that is None, each with its number of channels."""
        return select_vit_norms(self._vit, blocks)

    def describe(self, norms: Mapping[str, int]) -> dict[str, Any]:
        """Return fields of the manifest; prompts are initialised as in visual prompt tuning."""
        vit = self._vit
        return {
            "layers": len(vit.blocks),
            "width": vit.width,
            "tokens": vit.tokens,
            "feature_width": vit.readout * vit.width,
            "patch_mean": float(vit.patch.weight.mean(dtype=np.float64)),
            "patch_std": float(vit.patch.weight.std(dtype=np.float64)),
            "prompt_bound": float(np.sqrt(6 / (3 * vit.patch_size[0] * vit.patch_size[1] + vit.width))),
            "activations": list_vit_activations(vit),
            "tunables": list_vit_tunables(vit, norms, pixels=self._format.pixels),
        }

    def build_graph(self, norms: Mapping[str, int]) -> onnx.ModelProto:
        """Build the graph of the model in which these norms are tunable."""
        image_format = self._format
        return build_vit_graph(self._vit, image_format.mean, image_format.std, norms, image_format.pixels)

    def draw_cases(
        self, batch: int, norms: Mapping[str, int], generator: np.random.Generator
    ) -> Iterator[tuple[str, dict[str, FloatArray]]]:
        """Draw tunables without and with prompts, shared and per image; with prompts also all others."""
        width = self._vit.width
        for prompt_count in PROMPT_COUNTS:
            for rows in sorted({1, batch}):
                prompts = generator.normal(0, 0.5, (rows, prompt_count, width))
                tunables = {PROMPTS: prompts.astype(np.float32)}
                if prompt_count and norms:
                    addends = generator.normal(0, 0.1, (rows, len(norms), 2, width))
                    tunables[NORMS] = addends.astype(np.float32)
                if prompt_count and self._format.pixels:
                    pixels = generator.normal(0, 0.2, (rows, *self.image_size, 3))
                    tunables[PIXELS] = pixels.astype(np.float32)
                yield f"P = {prompt_count}, R = {rows}", tunables

    @torch.inference_mode()  # type: ignore[untyped-decorator, unused-ignore]
    def compute_reference(self, images: ImageArray, tunables: Tunables, norms: Mapping[str, int]) -> Outputs:
        """Compute the outputs that docs/bundle.md defines with the model's own PyTorch modules.

        Args:
            images: uint8 `[N, H, W, 3]`.
            tunables: `prompts` float32 `[R, P, D]` and `norms` float32 `[S, M, 2, D]`, R and S in {1, N}.
            norms: names of the M modules that `norms` adds to.
        """
        tensors = {name: torch.from_numpy(values) for name, values in tunables.items()}
        outputs = self._run_modules(images, tensors, norms)
        return Outputs(*(output.numpy() for output in outputs))

    def compute_reference_gradients(
        self, images: ImageArray, tunables: Tunables, norms: Mapping[str, int], slopes: Slopes
    ) -> dict[str, FloatArray]:
        """Compute the gradient of Σ ⟨slopes, outputs⟩ for each tunable with PyTorch's autograd.

        Args:
            images: uint8 `[N, H, W, 3]`.
            tunables: as for `compute_reference`, one row each.
            norms: names of the M modules that `norms` adds to.
            slopes: float32, of logits, features and entropies.
        """
        assert (
            slopes.logits is not None and slopes.features is not None and slopes.entropy_weights is not None
        )
        tensors = {name: torch.from_numpy(values).requires_grad_() for name, values in tunables.items()}
        logits, features, _ = self._run_modules(images, tensors, norms)
        loss = (logits * torch.from_numpy(slopes.logits)).sum()
        loss = loss + (features * torch.from_numpy(slopes.features)).sum()
        entropies = torch.special.entr(logits.softmax(1)).sum(1)
        loss = loss + (entropies * torch.from_numpy(slopes.entropy_weights)).sum()
        gradients = torch.autograd.grad(loss, list(tensors.values()))
        return {name: gradient[0].numpy() for name, gradient in zip(tensors, gradients, strict=True)}

    def _run_modules(
        self, images: ImageArray, tunables: Mapping[str, Tensor], norms: Mapping[str, int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits, features and moments of the embedding."""
        model = self._model
        pixels = normalise_pixels(images, self._format, tunables.get(PIXELS))
        with replace_outputs(model, make_norm_hooks(norms, tunables.get(NORMS))):
            tokens = model._pos_embed(model.patch_embed(pixels))
            prefix = model.num_prefix_tokens
            patches = model.norm_pre(tokens)[:, prefix:]
            if PROMPTS in tunables:
                prompts = tunables[PROMPTS].expand(len(images), -1, -1)
                tokens = torch.cat([tokens[:, :prefix], prompts, tokens[:, prefix:]], dim=1)
            tokens = model.norm_pre(tokens)
            readout = 2 if hasattr(model, "head_dist") else 1
            feature_norms: list[nn.Module] = [*(block.norm1 for block in model.blocks[1:]), model.norm]
            features: list[Tensor] = []
            for block, norm in zip(model.blocks, feature_norms, strict=True):
                tokens = block(tokens)
                features.append(norm(tokens[:, :readout]).flatten(1))
            logits = model.forward_head(model.norm(tokens))
        moments = torch.stack([patches.mean(1), patches.var(1, unbiased=False)], dim=1)
        return logits, torch.stack(features, dim=1), moments
