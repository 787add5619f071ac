"""Texts for the training of a small text tower of open_clip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..engine.text.tokenizer import Tokenizer


def tokenise(tokenizer: Tokenizer, text: str) -> list[int]:
    """Return the tokens of a text, start and end included.

    Raises:
        InputError: the text cannot be used.
    """
    return [tokenizer.vocabulary.start, *tokenizer.encode(text), tokenizer.vocabulary.end]


def pad_texts(texts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Return texts as int64 `[T, L]`, padded with 0, and the places of their last tokens, int64 `[T]`."""
    ends = torch.tensor([len(text) - 1 for text in texts])
    tokens = torch.zeros(len(texts), int(ends.max()) + 1, dtype=torch.int64)
    for row, text in zip(tokens, texts, strict=True):
        row[: len(text)] = torch.tensor(text)
    return tokens, ends


def encode_texts(model: Any, embedded: Tensor, ends: Tensor) -> Tensor:
    """Return unit-length embeddings `[T, E]`: open_clip's text tower with gradients, cut behind the longest.

    Args:
        model: open_clip's `CLIP`.
        embedded: embeddings of the tokens without positions, `[T, L, D]`.
        ends: places of the end tokens, `[T]`.
    """
    length = embedded.shape[1]
    x = embedded + model.positional_embedding[:length]
    x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:length, :length]))
    return functional.normalize(x[torch.arange(len(ends)), ends] @ model.text_projection, dim=-1)
