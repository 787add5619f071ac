"""Residual networks with batch norms, as the exporter sees them: graph, facts, and PyTorch's answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from ..engine.model import FloatArray, ImageArray, Outputs, Tunables
from .reference import normalised_pixels, replaced_outputs
from .resnet import read_resnet
from .resnet_graph import build_resnet_graph, tunable_norms


class ResnetFamily:
    """A residual network with batch norms; it reads images of any size, and its graph those of one.

    Attributes:
        checked: what `cases` covers, in words.
    """

    checked = "statistics of the running average, of the batch and between"

    def __init__(
        self, model: Any, image_size: tuple[int, int], mean: tuple[float, ...], std: tuple[float, ...]
    ) -> None:
        """Reads a timm model; `mean` and `std` are per channel, of images scaled to 0..1.

        Raises:
            ExportError: it is not a ResNet with batch norms, or has a part that is not understood.
        """
        self._model, self._size, self._mean, self._std = model, image_size, mean, std
        self._resnet = read_resnet(model)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images that the graph reads, in pixels."""
        return self._size

    @property
    def blocks(self) -> int:
        """Number of blocks of all stages."""
        return len(self._resnet.blocks)

    @property
    def head(self) -> tuple[FloatArray, FloatArray]:
        """Weight `[K, F]` and bias `[K]` of the classifier."""
        return self._resnet.head_weight, self._resnet.head_bias

    def norms(self, blocks: Sequence[int] | None) -> dict[str, int]:
        """`bn1` and `bn2` of some blocks, counted over all stages, or of all."""
        return tunable_norms(self._resnet, blocks)

    def facts(self, norms: Mapping[str, int]) -> dict[str, Any]:
        """What the manifest says of the model; tokens are the positions of the last stage."""
        widths = self._resnet.widths
        with torch.inference_mode():
            last = self._model.forward_features(torch.zeros(1, 3, *self._size))
        tunables: dict[str, tuple[str | int, ...]] = {"batch_statistics": (1,)}
        if norms:
            tunables = {"norms": (1, len(norms), 2, max(norms.values())), **tunables}
        return {
            "layers": len(widths),
            "width": widths[-1],
            "tokens": int(last.shape[2] * last.shape[3]),
            "feature_width": widths[-1],
            "feature_widths": widths,
            "prompt_bound": 0.0,
            "tunables": tunables,
        }

    def graph(self, norms: Mapping[str, int]) -> onnx.ModelProto:
        """The model as a graph whose norms can be tuned."""
        return build_resnet_graph(self._resnet, self._size, self._mean, self._std, norms)

    def cases(
        self, batch: int, norms: Mapping[str, int], generator: np.random.Generator
    ) -> Iterator[tuple[str, dict[str, FloatArray]]]:
        """The plain network; then running, mixed and batch statistics, without and with addends to norms."""
        yield "plain", {}
        shape = (1, len(norms), 2, max(norms.values(), default=0))
        for share in (0.0, 0.5, 1.0):
            tunables = {"batch_statistics": np.asarray([share], np.float32)}
            if share:
                yield f"batch_statistics = {share:g}", tunables
            if norms:
                addends = generator.normal(0, 0.1, shape).astype(np.float32)
                yield f"batch_statistics = {share:g} and norms", {**tunables, "norms": addends}

    @torch.inference_mode()  # type: ignore[untyped-decorator, unused-ignore]
    def reference(self, images: ImageArray, tunables: Tunables, norms: Mapping[str, int]) -> Outputs:
        """What the model's own PyTorch modules answer, as docs/bundle.md defines it.

        Args:
            images: uint8 `[N, H, W, 3]`.
            tunables: `norms` float32 `[1, M, 2, W]` and `batch_statistics` float32 `[1]`.
            norms: the M modules that `norms` adds to, each with its number of channels.
        """
        model = self._model
        pixels = normalised_pixels(images, self._mean, self._std)
        addends = tunables.get("norms")
        tuned = {} if addends is None else dict(zip(norms, torch.from_numpy(addends[0]), strict=True))
        share = float(tunables["batch_statistics"][0]) if "batch_statistics" in tunables else 0.0
        with replaced_outputs(model, _tuned_norms(model, tuned, share)):
            embedded = model.conv1(pixels)
            x = model.maxpool(model.act1(model.bn1(embedded)))
            features = []
            for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
                x = stage(x)
                features.append(model.global_pool(x))
            logits = model.fc(features[-1])
        width = features[-1].shape[1]
        padded = [F.pad(feature, (0, width - feature.shape[1])) for feature in features]
        moments = [embedded.mean((2, 3)), embedded.var((2, 3), unbiased=False)]
        return Outputs(
            logits.numpy(), torch.stack(padded, dim=1).numpy(), torch.stack(moments, dim=1).numpy()
        )


def _tuned_norms(
    model: nn.Module, addends: Mapping[str, Tensor], share: float
) -> dict[str, Callable[..., Tensor]]:
    """What all batch norms answer that mix the statistics of the batch into the running ones.

    Args:
        model: whose norms; nothing of them is changed.
        addends: `[2, W]` by name of the norm, what is added to its gain and bias; the rest is padding.
        share: of the batch's mean and biased variance.
    """

    def hook(name: str) -> Callable[..., Tensor]:
        def replaced(norm: Any, inputs: tuple[Tensor], output: Tensor) -> Tensor:
            x = inputs[0]
            mean = torch.lerp(norm.running_mean, x.mean((0, 2, 3)), share)
            variance = torch.lerp(norm.running_var, x.var((0, 2, 3), unbiased=False), share)
            gain, bias = norm.weight, norm.bias
            if name in addends:
                gain, bias = torch.stack([gain, bias]) + addends[name][:, : len(mean)]
            return F.batch_norm(x, mean, variance, gain, bias, eps=norm.eps)

        return replaced

    names = [name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)]
    return {name: hook(name) for name in names}
