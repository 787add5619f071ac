"""The kinds of models that can be exported, behind one protocol: what exporter and check ask of one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import onnx
from timm.models.resnet import ResNet

from ..engine.model import FloatArray, ImageArray, Outputs, Tunables
from .resnet_family import ResnetFamily
from .vit_family import VitFamily


class Family(Protocol):
    """A model that has been read.

    Attributes:
        checked: the cases of `cases`, in words.
    """

    checked: str

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images it reads, in pixels."""

    @property
    def blocks(self) -> int:
        """Number of blocks, from which tunable norms are chosen."""

    @property
    def head(self) -> tuple[FloatArray, FloatArray]:
        """Weight `[K, F]` and bias `[K]` of the classifier, which reads the last feature."""

    def norms(self, blocks: Sequence[int] | None) -> dict[str, int]:
        """Norms of some blocks, or of all, that can be tuned, each with its number of channels."""

    def facts(self, norms: Mapping[str, int]) -> dict[str, Any]:
        """What the manifest says of the model, by field, if these norms are tunable."""

    def graph(self, norms: Mapping[str, int]) -> onnx.ModelProto:
        """The model as a graph whose norms can be tuned."""

    def cases(
        self, batch: int, norms: Mapping[str, int], generator: np.random.Generator
    ) -> Iterator[tuple[str, dict[str, FloatArray]]]:
        """Tunables to check the graph with on a batch of so many images, each set with its name."""

    def reference(self, images: ImageArray, tunables: Tunables, norms: Mapping[str, int]) -> Outputs:
        """What the model's own PyTorch modules answer to images uint8 `[N, H, W, 3]`."""


def read_family(
    model: Any, image_size: tuple[int, int], mean: tuple[float, ...], std: tuple[float, ...]
) -> Family:
    """Reads a timm model.

    Args:
        model: the PyTorch model.
        image_size: height and width in pixels, for models that read images of any size.
        mean: per channel, of images scaled to 0..1.
        std: per channel, of images scaled to 0..1.

    Raises:
        ExportError: it is of no kind that can be exported, or has a part that is not understood.
    """
    if isinstance(model, ResNet):
        return ResnetFamily(model, image_size, mean, std)
    return VitFamily(model, mean, std)
