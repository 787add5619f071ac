"""Family of CLIP's image towers: graph, manifest fields and open_clip's own outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from ..engine.model import NORMS, PIXELS, PROMPTS, FloatArray, ImageArray
from .clip_graph import build_clip_graph, list_feature_widths
from .clip_model import read_image_tower
from .image_format import ImageFormat
from .torch_reference import make_norm_hooks, normalise_pixels, replace_outputs
from .vit import VitFamily
from .vit_model import Vit


class ClipFamily(VitFamily):
    """Image tower of a CLIP model, with a classifier made from texts.

    Attributes:
        case_summary: the cases of `draw_cases`, in words.
    """

    def __init__(self, model: Any, image_format: ImageFormat, classifier: FloatArray) -> None:
        """Read the image tower of a model of open_clip.

        Args:
            model: the whole model, in eval mode.
            image_format: normalisation of its images.
            classifier: float32 `[K, E]`, its rows τ times the unit-length embedding of a text.

        Raises:
            ExportError: the tower has an unsupported part.
        """
        super().__init__(model, image_format)
        missing = max(list_feature_widths(self._vit)) - classifier.shape[1]
        self._classifier = np.pad(classifier, [(0, 0), (0, missing)])

    def _read(self, model: Any) -> Vit:
        return read_image_tower(model.visual)

    @property
    def head(self) -> tuple[FloatArray, FloatArray]:
        """Weight `[K, F]`, the classifier padded with zeros, and bias `[K]`, zeros."""
        return self._classifier, np.zeros(len(self._classifier), np.float32)

    def describe(self, norms: Mapping[str, int]) -> dict[str, Any]:
        """Return fields of the manifest; the image embedding is one more layer."""
        widths = list_feature_widths(self._vit)
        features = {"layers": len(widths), "feature_width": max(widths), "feature_widths": widths}
        return {**super().describe(norms), **features}

    def build_graph(self, norms: Mapping[str, int]) -> onnx.ModelProto:
        """Build the graph of the tower in which these norms are tunable."""
        return build_clip_graph(self._vit, self._format.mean, self._format.std, norms, self._format.pixels)

    def _run_modules(
        self, images: ImageArray, tunables: Mapping[str, Tensor], norms: Mapping[str, int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits, features and moments of the embedding of the patches."""
        tower = self._model.visual
        pixels = normalise_pixels(images, self._format, tunables.get(PIXELS))
        hooks = make_norm_hooks(map(_name_module, norms), tunables.get(NORMS))
        with replace_outputs(tower, hooks):
            patches = tower.conv1(pixels).flatten(2).transpose(1, 2)
            start = tower.class_embedding.expand(len(pixels), 1, -1)
            tokens = torch.cat([start, patches], dim=1) + tower.positional_embedding
            patches = tower.ln_pre(tokens)[:, 1:]
            if PROMPTS in tunables:
                prompts = tunables[PROMPTS].expand(len(pixels), -1, -1)
                tokens = torch.cat([tokens[:, :1], prompts, tokens[:, 1:]], dim=1)
            tokens = tower.ln_pre(tokens)
            blocks = tower.transformer.resblocks
            features: list[Tensor] = []
            for block, norm in zip(
                blocks, [*(block.ln_1 for block in blocks[1:]), tower.ln_post], strict=True
            ):
                tokens = block(tokens)
                features.append(norm(tokens[:, :1]).flatten(1))
            embedding = F.normalize(features[-1] @ tower.proj, dim=-1)
        width = self._classifier.shape[1]
        features = [F.pad(feature, (0, width - feature.shape[1])) for feature in [*features, embedding]]
        logits = features[-1] @ torch.from_numpy(self._classifier).T
        moments = torch.stack([patches.mean(1), patches.var(1, unbiased=False)], dim=1)
        return logits, torch.stack(features, dim=1), moments


def _name_module(norm: str) -> str:
    """Return open_clip's name of a norm like `blocks.3.norm1`."""
    _, block, which = norm.split(".")
    return f"transformer.resblocks.{block}.ln_{which.removeprefix('norm')}"
