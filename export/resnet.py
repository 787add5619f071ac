"""Family of the residual networks with batch norms: graph, manifest fields and PyTorch reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from ..engine.errors import ExportError
from ..engine.model import BATCH_STATISTICS, NORMS, FloatArray, ImageArray, Outputs, Slopes, Tunables
from .image_format import ImageFormat
from .resnet_graph import build_resnet_graph, list_resnet_tunables, select_resnet_norms
from .resnet_model import read_resnet
from .torch_reference import normalise_pixels, replace_outputs


class ResnetFamily:
    """A residual network with batch norms; it reads images of any size, and its graph those of one.

    Attributes:
        case_summary: the cases of `draw_cases`, in words.
    """

    case_summary = "statistics of the running average, of the batch and between"

    def __init__(self, model: Any, image_format: ImageFormat) -> None:
        """Read a timm model.

        Raises:
            ExportError: it is not a ResNet with batch norms, or has an unsupported part; or the images shall
                be tunable.
        """
        if image_format.pixels:
            raise ExportError("only vision transformers have tunable pixels; leave out --pixels")
        self._model, self._format = model, image_format
        self._resnet = read_resnet(model)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images that the graph reads, in pixels."""
        return self._format.size

    @property
    def blocks(self) -> int:
        """Number of blocks of all stages."""
        return len(self._resnet.blocks)

    @property
    def head(self) -> tuple[FloatArray, FloatArray]:
        """Weight `[K, F]` and bias `[K]` of the classifier."""
        return self._resnet.head_weight, self._resnet.head_bias

    def select_norms(self, blocks: Sequence[int] | None) -> dict[str, int]:
        """Return `bn1` and `bn2` of some blocks, counted over all stages, or of all if that is None."""
        return select_resnet_norms(self._resnet, blocks)

    def describe(self, norms: Mapping[str, int]) -> dict[str, Any]:
        """Return fields of the manifest; tokens are the positions of the last stage."""
        widths = self._resnet.widths
        with torch.inference_mode():
            last = self._model.forward_features(torch.zeros(1, 3, *self._format.size))
        return {
            "layers": len(widths),
            "width": widths[-1],
            "tokens": int(last.shape[2] * last.shape[3]),
            "feature_width": widths[-1],
            "feature_widths": widths,
            "prompt_bound": 0.0,
            "tunables": list_resnet_tunables(norms),
        }

    def build_graph(self, norms: Mapping[str, int]) -> onnx.ModelProto:
        """Build the graph of the model in which these norms are tunable."""
        return build_resnet_graph(self._resnet, self._format, norms)

    def draw_cases(
        self, batch: int, norms: Mapping[str, int], generator: np.random.Generator
    ) -> Iterator[tuple[str, dict[str, FloatArray]]]:
        """Draw no tunables, then running, mixed and batch statistics, without and with addends to norms."""
        yield "plain", {}
        shape = (1, len(norms), 2, max(norms.values(), default=0))
        for share in (0.0, 0.5, 1.0):
            tunables = {BATCH_STATISTICS: np.asarray([share], np.float32)}
            if share:
                yield f"batch_statistics = {share:g}", tunables
            if norms:
                addends = generator.normal(0, 0.1, shape).astype(np.float32)
                yield f"batch_statistics = {share:g} and norms", {**tunables, NORMS: addends}

    def compute_reference_gradients(
        self, images: ImageArray, tunables: Tunables, norms: Mapping[str, int], slopes: Slopes
    ) -> dict[str, FloatArray]:
        """Refuse: with batch statistics the images of a batch depend on each other.

        Raises:
            ExportError: always.
        """
        raise ExportError(
            "gradients of residual networks are not supported: with batch statistics the images of a batch "
            "depend on each other; export without --gradients"
        )

    @torch.inference_mode()  # type: ignore[untyped-decorator, unused-ignore]
    def compute_reference(self, images: ImageArray, tunables: Tunables, norms: Mapping[str, int]) -> Outputs:
        """Compute the outputs that docs/bundle.md defines with the model's own PyTorch modules.

        Args:
            images: uint8 `[N, H, W, 3]`.
            tunables: `norms` float32 `[1, M, 2, W]` and `batch_statistics` float32 `[1]`.
            norms: names of the M modules that `norms` adds to, each with its number of channels.
        """
        model = self._model
        pixels = normalise_pixels(images, self._format)
        addends = tunables.get(NORMS)
        addend_of = {} if addends is None else dict(zip(norms, torch.from_numpy(addends[0]), strict=True))
        share = float(tunables[BATCH_STATISTICS][0]) if BATCH_STATISTICS in tunables else 0.0
        with replace_outputs(model, _make_norm_hooks(model, addend_of, share)):
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


def _make_norm_hooks(
    model: nn.Module, addends: Mapping[str, Tensor], share: float
) -> dict[str, Callable[..., Tensor]]:
    """Return forward hooks of all batch norms that mix the batch's statistics into the running ones.

    Args:
        model: holds the norms; nothing is changed in it.
        addends: added to gain and bias, `[2, W]` by name of the norm; values beyond its channels are padding.
        share: weight of the batch's mean and biased variance, 0..1.
    """

    def make_hook(name: str) -> Callable[..., Tensor]:
        def compute_output(norm: Any, inputs: tuple[Tensor], output: Tensor) -> Tensor:
            x = inputs[0]
            mean = torch.lerp(norm.running_mean, x.mean((0, 2, 3)), share)
            variance = torch.lerp(norm.running_var, x.var((0, 2, 3), unbiased=False), share)
            gain, bias = norm.weight, norm.bias
            if name in addends:
                gain, bias = torch.stack([gain, bias]) + addends[name][:, : len(mean)]
            return F.batch_norm(x, mean, variance, gain, bias, eps=norm.eps)

        return compute_output

    names = [name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)]
    return {name: make_hook(name) for name in names}
