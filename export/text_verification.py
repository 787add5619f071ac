"""Verification of an exported text graph and of the tokenizer: both do what open_clip does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from ..engine.errors import ExportError
from ..engine.model import FloatArray
from ..engine.runtime.graph_contract import CONTEXTS, EMBEDDED, EMBEDDINGS, LENGTHS, TOKENS
from ..engine.text.tokenizer import Tokenizer
from .text_model import TextTower, get_text_module

TOLERANCE = 1e-4  # of entries of vectors of length 1; float32 through a few hundred operators
CONTEXT_COUNTS = (1, 2)
CONTEXT_LENGTHS = (0, 4, 8)
TEXT_COUNTS = (1, 3)
PADDING = 3
WORDS = 2  # that a sentence as a whole shares with a context


@torch.inference_mode()  # type: ignore[untyped-decorator, unused-ignore]
def verify_text(model: Any, tower: TextTower, graph: Path) -> float:
    """Run text graph and open_clip on random texts and contexts, and on contexts of words.

    Args:
        model: the model of open_clip.
        tower: its text tower.
        graph: the text graph.

    Returns:
        The largest absolute difference of an entry of an embedding.

    Raises:
        ExportError: it is larger than rounding explains, or an embedding is not finite.
    """
    encode = open_text_graph(graph)
    generator = np.random.default_rng(0)
    worst = 0.0
    for contexts, texts in _draw_cases(tower, generator):
        expected = encode_texts(model, tower, contexts, texts)
        for padding in (0, PADDING):
            room = len(tower.positions) - 1 - contexts.shape[1] - max(map(len, texts))
            actual, _ = encode(texts, contexts, min(padding, room))
            case = f"{len(texts)} texts behind {len(contexts)} contexts of {contexts.shape[1]} vectors"
            worst = max(worst, _compare(actual, expected, case))
    return max(worst, _verify_sentences(model, tower, encode, generator))


class TextEncoding(Protocol):
    """Interface of an opened text graph."""

    def __call__(
        self, texts: Sequence[Sequence[int]], contexts: FloatArray | None = None, padding: int = 0
    ) -> list[FloatArray]:
        """Return embeddings `[R, T, E]` and embedded tokens `[T, L, D]`.

        Args:
            texts: tokens of each text with its end token.
            contexts: float32 `[R, M, D]`; None is one context of no vectors.
            padding: columns beyond the longest text.
        """


def open_text_graph(graph: Path) -> TextEncoding:
    """Open a text graph."""
    session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    width = next(node.shape[2] for node in session.get_inputs() if node.name == CONTEXTS)

    def encode(
        texts: Sequence[Sequence[int]], contexts: FloatArray | None = None, padding: int = 0
    ) -> list[FloatArray]:
        tokens = np.zeros((len(texts), max(map(len, texts)) + padding), np.int64)
        for row, text in zip(tokens, texts, strict=True):
            row[: len(text)] = text
        lengths = np.asarray([len(text) - 1 for text in texts], np.int64)
        contexts = np.zeros((1, 0, width), np.float32) if contexts is None else contexts
        feed = {TOKENS: tokens, LENGTHS: lengths, CONTEXTS: contexts}
        outputs: list[FloatArray] = session.run([EMBEDDINGS, EMBEDDED], feed)
        return outputs

    return encode


def _draw_cases(
    tower: TextTower, generator: np.random.Generator
) -> Iterator[tuple[FloatArray, list[list[int]]]]:
    """Draw contexts and texts: short and long ones, without and with contexts."""
    longest = len(tower.positions) - 1
    for length in CONTEXT_LENGTHS:
        for count in CONTEXT_COUNTS:
            for texts in TEXT_COUNTS:
                lengths = generator.integers(1, 12, texts)
                lengths[-1] = longest - length if texts > 1 else lengths[-1]
                lengths = lengths.clip(1, longest - length)
                contexts = generator.normal(0, tower.embedding.std(), (count, length, tower.width))
                yield contexts.astype(np.float32), [_draw_text(tower, size, generator) for size in lengths]


def _draw_text(tower: TextTower, length: int, generator: np.random.Generator) -> list[int]:
    """Draw so many tokens, the end token being the last one."""
    return [*generator.integers(0, tower.start, length - 1).tolist(), tower.end]


def _verify_sentences(
    model: Any, tower: TextTower, encode: TextEncoding, generator: np.random.Generator
) -> float:
    """Compare contexts of words with open_clip's whole model, which reads the sentences as they are."""
    words = generator.integers(0, tower.start, WORDS).tolist()
    names = [_draw_text(tower, size, generator) for size in (1, 3, 6)]
    embedded = encode([[*words, tower.end]])[1][:, :WORDS]
    sentences = [[tower.start, *words, *name] for name in names]
    expected = _encode_sentences(model, tower, sentences)
    whole = encode([sentence[1:] for sentence in sentences])[0]
    return max(
        _compare(whole, expected, "whole sentences"),
        _compare(encode(names, embedded)[0], expected, "sentences whose words are a context"),
    )


def _encode_sentences(model: Any, tower: TextTower, sentences: list[list[int]]) -> FloatArray:
    padded = torch.zeros(len(sentences), len(tower.positions), dtype=torch.int64)
    for row, ids in zip(padded, sentences, strict=True):
        row[: len(ids)] = torch.tensor(ids)
    encoded: FloatArray = model.encode_text(padded, normalize=True)[None].numpy()
    return encoded


def encode_texts(model: Any, tower: TextTower, contexts: FloatArray, texts: list[list[int]]) -> FloatArray:
    """Return unit embeddings `[R, T, E]` of texts behind contexts, by open_clip's own modules.

    Args:
        model: the model of open_clip.
        tower: its text tower.
        contexts: float32 `[R, M, D]`.
        texts: tokens of each text with its end token.
    """
    module = get_text_module(model)

    def embed(ids: Sequence[int]) -> Tensor:
        return module.token_embedding(torch.tensor(ids, dtype=torch.int64))

    rows = []
    for context in torch.from_numpy(contexts):
        for ids in texts:
            x = torch.cat([embed([tower.start]), context, embed(ids)])
            end = len(x) - 1
            x = torch.cat([x, embed([0] * (len(tower.positions) - len(x)))]) + module.positional_embedding
            x = module.ln_final(module.transformer(x[None], attn_mask=module.attn_mask))[0, end]
            rows.append(_project(x, module.text_projection))
    embeddings: FloatArray = torch.stack(rows).reshape(len(contexts), len(texts), -1).numpy()
    return embeddings


def _project(x: Tensor, projection: Any) -> Tensor:
    return F.normalize(x @ projection if isinstance(projection, Tensor) else projection(x), dim=-1)


def _compare(actual: FloatArray, expected: FloatArray, case: str) -> float:
    """Return the largest absolute difference; raise if rounding does not explain it."""
    if not (np.isfinite(actual).all() and np.isfinite(expected).all()):
        raise ExportError(f"the text tower answers {case} with non-finite embeddings; check its weights")
    difference = float(np.abs(actual - expected).max())
    if difference > TOLERANCE:
        raise ExportError(
            f"the text graph does not compute what open_clip does: embeddings of {case} differ by up to "
            f"{difference:.3g}; nothing was written, please report this model"
        )
    return difference


def verify_tokenizer(
    tokenizer: Tokenizer, reference: Callable[[str], list[int]], texts: Sequence[str]
) -> None:
    """Compare the tokenizer with open_clip's on some texts.

    Args:
        tokenizer: of the bundle.
        reference: open_clip's, from a text to its tokens without start and end.
        texts: the texts.

    Raises:
        ExportError: the tokens of a text differ.
    """
    for text in texts:
        actual, expected = list(tokenizer.encode(text)), list(reference(text))
        if actual != expected:
            raise ExportError(
                f"the tokenizer does not do what open_clip's does: {text!r} has the tokens {actual}, and "
                f"{expected} there; nothing was written, please report this text, or write it otherwise"
            )
