"""Entries of the manifest about the text side of a model, and about classes made from texts."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class TextEntry:
    """Text side of a model that compares images with texts.

    Attributes:
        file: name of the text graph.
        vocabulary: name of the tokenizer's vocabulary file.
        width: D, width of a token and so of a context vector.
        context_length: tokens of a text at most, start and end included.
        embedding_width: E, width of the unit-length embeddings of images and texts.
        logit_scale: τ, by which cosines are multiplied to give logits.
        start_token: token before every text.
        end_token: token after every text, whose output is the embedding.
        max_abs_difference: largest absolute difference of an embedding to PyTorch's, as measured.
        record: how it was made, for people.
    """

    file: str
    vocabulary: str
    width: int
    context_length: int
    embedding_width: int
    logit_scale: float
    start_token: int
    end_token: int
    max_abs_difference: float
    record: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CoordinatorEntry:
    """An encoder, and a decoder that makes an addend to every image from its features.

    Attributes:
        parameters: number of parameters of the decoder, in the file as `coordinator_parameters`.
        norm_channels: length of `coordinator_mean` and `coordinator_variance`, of its batch norms.
        layer: the feature that it reads, counted from the last, which is -1.
        width: channels of that feature.
        encoder: name of the encoder's ONNX file; None: the graph in use.
    """

    parameters: int
    norm_channels: int
    layer: int
    width: int
    encoder: str | None = None


@dataclass(frozen=True)
class ImagePromptEntry:
    """Values that were learnt for the images together with classes.

    Attributes:
        frame: width in pixels of the black frame that images must have; 0: none.
        pixels: whether the file has `pixels` `[H, W, 3]`, which are added to the images.
        prompts: P, number of prompts `[P, D]` in the file that stand in front of others; 0: none.
        coordinator: makes further pixels for every image; None: there is none.
    """

    frame: int = 0
    pixels: bool = False
    prompts: int = 0
    coordinator: CoordinatorEntry | None = None

    def describe(self) -> str:
        """Return this in a few words.

        >>> ImagePromptEntry(frame=15, pixels=True).describe()
        'a learnt border of 15 pixels'
        """
        border = f"a learnt border of {self.frame} pixels" if self.frame else "learnt pixels"
        parts = [border] * self.pixels + [f"{self.prompts} visual prompts"] * bool(self.prompts)
        if self.coordinator is not None:
            source = "its own features" if self.coordinator.encoder is None else "features of an encoder"
            parts.append(f"pixels for every image from {source}")
        return " and ".join(parts)


@dataclass(frozen=True)
class HeadEntry:
    """Classes made from texts.

    Attributes:
        file: name of the `.npz` file with `weight` `[K, F]`, `bias` `[K]`, and perhaps `context` `[M, D]`.
        class_ids: K identifiers in the order of the logits, all different.
        class_names: K names as they stand in the texts.
        templates: texts with `{}` for the name; where there is a context, one that begins with the name.
        context_vectors: M, number of the vectors in front of every name that were learnt; None: words are.
        text_sha256: text graph and vocabulary that made it; it is never used with others.
        record: how it was made, for people.
        images: number of labelled images that the classifier comes from, beside the texts; None: texts alone.
        image_prompt: what was learnt for the images; None: they stay as they are.
    """

    file: str
    class_ids: tuple[str, ...]
    class_names: tuple[str, ...]
    templates: tuple[str, ...]
    context_vectors: int | None
    text_sha256: str
    record: dict[str, Any] = field(default_factory=dict)
    images: int | None = None
    image_prompt: ImagePromptEntry | None = None


def find_contradiction_of_text(text: TextEntry, feature_width: int) -> str | None:
    """Return the first contradiction in the entry of the text side, or None.

    Args:
        text: the entry.
        feature_width: F, width of a feature of the images.
    """
    if not 0 < text.logit_scale < math.inf or not 0 < text.embedding_width <= feature_width:
        return (
            "text: expected a logit_scale above 0 and an embedding_width of at most "
            f"{feature_width}, found {text.logit_scale} and {text.embedding_width}"
        )
    if text.width < 1 or text.context_length < 3 or min(text.start_token, text.end_token) < 0:
        return "text: expected a width above 0, a context_length of at least 3, and tokens of at least 0"
    return None


def find_contradiction_of_head(head: HeadEntry) -> str | None:
    """Return the first contradiction in the entry of classes made from texts, or None."""
    count = len(head.class_names)
    if not count or len(head.class_ids) != count or len(set(head.class_ids)) != count:
        return f"expected one class at least, and {count} different class_ids"
    if not head.templates or any(template.count("{}") != 1 for template in head.templates):
        return f"expected templates with one {{}} for the name, found {list(head.templates)}"
    if head.images is not None and (head.images < 1 or head.context_vectors is not None):
        return "expected one image at least, and no learnt context beside images"
    prompt = head.image_prompt
    if prompt is not None and (
        min(prompt.frame, prompt.prompts) < 0 or not (prompt.pixels or prompt.prompts or prompt.coordinator)
    ):
        return "expected an image prompt with pixels or prompts, and no negative number"
    coordinator = None if prompt is None else prompt.coordinator
    if coordinator is not None and (
        coordinator.layer >= 0
        or min(coordinator.parameters, coordinator.norm_channels, coordinator.width) < 1
    ):
        return "expected a coordinator with a layer below 0, and other numbers above it"
    single = len(head.templates) == 1 and head.templates[0].startswith("{}")
    if head.context_vectors is not None and (head.context_vectors < 1 or not single):
        return "expected one vector of context at least, and one template that begins with the name"
    return None
