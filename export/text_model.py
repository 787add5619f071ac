"""Plain description of CLIP's text tower, read from open_clip, and the reasons why one cannot be exported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from open_clip.model import CLIP, CustomTextCLIP
from open_clip.transformer import TextTransformer
from torch import nn

from ..engine.model import FloatArray
from .open_clip_blocks import read_blocks, read_norm, require
from .parameters import read_array
from .transformer_model import Block, Linear, Norm, convert_linear


@dataclass(frozen=True)
class TextTower:
    """A causal text transformer; its embedding is read from the end token.

    Attributes:
        embedding: of the vocabulary's tokens, float32 `[V, D]`.
        positions: position embeddings `[C, D]`; C is the length of the longest text.
        start: id of the start token.
        end: id of the end token.
        blocks: the blocks.
        norm: the final norm.
        projection: from the final norm to the embedding, weight `[E, D]`.
    """

    embedding: FloatArray
    positions: FloatArray
    start: int
    end: int
    blocks: tuple[Block, ...]
    norm: Norm
    projection: Linear

    @property
    def width(self) -> int:
        """D, the width of a token."""
        return int(self.embedding.shape[1])


def read_text_tower(model: Any, start: int, end: int) -> TextTower:
    """Read the text tower of a CLIP model.

    Args:
        model: open_clip's `CLIP`, or `CustomTextCLIP` with a text tower of the same kind.
        start: id of the tokenizer's start token.
        end: id of the tokenizer's end token.

    Raises:
        ExportError: the tower has an unsupported part.
    """
    require(type(model) in (CLIP, CustomTextCLIP), f"is a {type(model).__name__}")
    tower, pooling = get_text_module(model), getattr(model, "text_pool_type", None)
    if type(model) is CustomTextCLIP:
        require(
            type(tower) is TextTransformer,
            f"has a {type(tower).__name__} as text tower, not open_clip's TextTransformer",
        )
        pooling = tower.pool_type
        require(tower.cls_emb is None, "reads texts from a class token of its own (embed_cls)")
    require(pooling == "argmax", f"reads texts by pooling {pooling!r}, not from the end token")
    require(
        tower.attn_mask is not None,
        "has a text tower without causal mask, so that contexts depend on the classes",
    )
    vocabulary = int(tower.token_embedding.num_embeddings)
    require(
        0 <= start < vocabulary and 0 <= end < vocabulary,
        f"has a vocabulary of {vocabulary} tokens, and its tokenizer's start and end tokens are {start} and "
        f"{end}",
    )
    return TextTower(
        embedding=read_array(tower.token_embedding.weight),
        positions=read_array(tower.positional_embedding),
        start=start,
        end=end,
        blocks=read_blocks(tower.transformer, "text tower"),
        norm=read_norm(tower.ln_final, "final norm of its text tower"),
        projection=_read_projection(tower.text_projection),
    )


def get_text_module(model: Any) -> Any:
    """Return the module that holds the parts of the text tower: the model itself, or its text tower."""
    return model.text if type(model) is CustomTextCLIP else model


def _read_projection(projection: Any) -> Linear:
    require(projection is not None, "has no projection of its texts")
    if isinstance(projection, nn.Linear):
        return convert_linear(projection)
    require(isinstance(projection, torch.Tensor), f"projects its texts by a {type(projection).__name__}")
    return Linear(read_array(projection).T, None)
