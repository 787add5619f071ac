"""Classes made from texts, as they are stored in a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..files import to_npz
from ..model import FloatArray, ImagePrompt
from .text_entries import CoordinatorEntry, HeadEntry, ImagePromptEntry


@dataclass(frozen=True, eq=False)
class Head:
    """Classes made from texts.

    Attributes:
        weight: float32 `[K, F]`: τ times the unit-length embedding of each class, padded with zeros; where
            images were used, too, with what they add.
        class_ids: K identifiers, all different.
        class_names: K names as they stand in the texts.
        templates: texts with `{}` for the name; where there is a context, one that begins with the name.
        context: learnt vectors in front of every name, float32 `[M, D]`, or None: the templates' words are.
        record: how it was made, for people.
        bias: float32 `[K]`, added to the logits; None where the classes come from texts alone.
        images: number of labelled images that weight and bias come from, beside the texts; None: no images.
        image_prompt: what was learnt for the images; None: they stay as they are.
    """

    weight: FloatArray
    class_ids: tuple[str, ...]
    class_names: tuple[str, ...]
    templates: tuple[str, ...]
    context: FloatArray | None = None
    record: Mapping[str, Any] = field(default_factory=dict)
    bias: FloatArray | None = None
    images: int | None = None
    image_prompt: ImagePrompt | None = None

    def to_npz(self) -> bytes:
        """Return weight, bias, context and image prompt as the content of a file."""
        context = {} if self.context is None else {"context": self.context}
        bias = np.zeros(len(self.weight), np.float32) if self.bias is None else self.bias
        prompt = {} if self.image_prompt is None else self.image_prompt.arrays
        return to_npz(weight=self.weight, bias=bias, **context, **prompt)

    def describe(self, file: str, text_sha256: str, encoder: str | None = None) -> HeadEntry:
        """Return the entry of the manifest.

        Args:
            file: name of the file.
            text_sha256: text graph and vocabulary that made it.
            encoder: name of the file of a coordinator's encoder; None where there is none.
        """
        return HeadEntry(
            file=file,
            class_ids=self.class_ids,
            class_names=self.class_names,
            templates=self.templates,
            context_vectors=None if self.context is None else len(self.context),
            text_sha256=text_sha256,
            record=dict(self.record),
            images=self.images,
            image_prompt=_describe_image_prompt(self.image_prompt, encoder),
        )


def _describe_image_prompt(prompt: ImagePrompt | None, encoder: str | None) -> ImagePromptEntry | None:
    if prompt is None:
        return None
    entry = None
    if (coordinator := prompt.coordinator) is not None:
        sizes = len(coordinator.parameters), len(coordinator.mean)
        entry = CoordinatorEntry(*sizes, coordinator.layer, coordinator.width, encoder)
    prompts = 0 if prompt.prompts is None else len(prompt.prompts)
    return ImagePromptEntry(prompt.frame, prompt.pixels is not None, prompts, entry)
