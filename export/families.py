"""Families of models that can be exported: one line each in `FAMILIES`, behind one protocol.

A family is made of `<family>.py`, `<family>_model.py` (its description, read from timm) and
`<family>_graph.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import onnx
import timm
from timm.models.resnet import ResNet
from timm.models.vision_transformer import VisionTransformer

from ..engine.errors import ExportError
from ..engine.model import FloatArray, ImageArray, Outputs, Slopes, Tunables
from .image_format import ImageFormat
from .resnet import ResnetFamily
from .vit import VitFamily


class Family(Protocol):
    """A model that can be exported.

    Attributes:
        case_summary: the cases of `draw_cases`, in words.
    """

    case_summary: str

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images that the graph reads, in pixels."""

    @property
    def blocks(self) -> int:
        """Number of blocks, from which tunable norms are chosen."""

    @property
    def head(self) -> tuple[FloatArray, FloatArray]:
        """Weight `[K, F]` and bias `[K]` of the classifier, which reads the last feature."""

    def select_norms(self, blocks: Sequence[int] | None) -> dict[str, int]:
        """Return the norms that can be tuned, of some blocks or of all, each with its number of channels."""

    def describe(self, norms: Mapping[str, int]) -> dict[str, Any]:
        """Return fields of the manifest by name, if these norms are tunable."""

    def build_graph(self, norms: Mapping[str, int]) -> onnx.ModelProto:
        """Build the graph of the model in which these norms are tunable."""

    def draw_cases(
        self, batch: int, norms: Mapping[str, int], generator: np.random.Generator
    ) -> Iterator[tuple[str, dict[str, FloatArray]]]:
        """Draw sets of tunables to verify the graph with, each with its name, for a batch of this size."""

    def compute_reference(self, images: ImageArray, tunables: Tunables, norms: Mapping[str, int]) -> Outputs:
        """Compute the outputs for images uint8 `[N, H, W, 3]` with the model's own PyTorch modules."""

    def compute_reference_gradients(
        self, images: ImageArray, tunables: Tunables, norms: Mapping[str, int], slopes: Slopes
    ) -> dict[str, FloatArray]:
        """Compute the gradient of Σ ⟨slopes, outputs⟩ for each tunable with PyTorch's autograd.

        Raises:
            ExportError: graphs of this family have no gradients.
        """


@dataclass(frozen=True)
class FamilyEntry:
    """Registration of a family.

    Attributes:
        model_class: class of timm whose models, subclasses included, belong to the family.
        read: reads a model; it raises `ExportError` if a part of the model is unsupported.
        has_image_size: whether models are created for one size of images, `img_size` in timm.
    """

    model_class: type
    read: Callable[[Any, ImageFormat], Family]
    has_image_size: bool


FAMILIES = (
    FamilyEntry(VisionTransformer, VitFamily, has_image_size=True),
    FamilyEntry(ResNet, ResnetFamily, has_image_size=False),
)


def read_family(model: Any, image_format: ImageFormat) -> Family:
    """Read a timm model.

    Args:
        model: the PyTorch model.
        image_format: normalisation of its images, and their size where the model reads any.

    Raises:
        ExportError: it belongs to no family, or has an unsupported part.
    """
    for entry in FAMILIES:
        if isinstance(model, entry.model_class):
            return entry.read(model, image_format)
    supported = " and ".join(entry.model_class.__name__ for entry in FAMILIES)
    raise ExportError(
        f"this model cannot be exported: it is a {type(model).__name__}; models of timm's {supported} can"
    )


def takes_image_size(name: str) -> bool:
    """Return whether a timm model of this name is created for one size of images."""
    modules = [entry.model_class.__module__ for entry in FAMILIES if not entry.has_image_size]
    return not timm.models.is_model_in_modules(name, [module.rpartition(".")[2] for module in modules])
