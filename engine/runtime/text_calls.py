"""Texts divided into calls of the text graph, such that no result depends on the division.

The texts of a call have the same number of tokens, so none is padded. The kernels of ONNX Runtime give a row
the same bits however many rows there are, with two exceptions: single rows, and products with a single
column, such as the scores of a prefix that is the start token alone. So a call has two texts at least, and
without context a multiple of eight. Where texts are missing, the last one is repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

TEXTS_PER_CALL = 32
ROWS_PER_CALL = 512  # tokens of all contexts and texts of a call
MULTIPLE_WITHOUT_CONTEXT = 8


@dataclass(frozen=True)
class TextCall:
    """One call of the text graph.

    Attributes:
        texts: indices of its texts, all of the same length; the last one may be repeated.
        contexts: first and last context, exclusive.
    """

    texts: tuple[int, ...]
    contexts: tuple[int, int]


def plan_text_calls(lengths: Sequence[int], contexts: int, vectors: int) -> list[TextCall]:
    """Return the calls for every text behind every context.

    Args:
        lengths: tokens of each text.
        contexts: R, number of contexts.
        vectors: M, vectors of each context.
    """
    calls: list[TextCall] = []
    for length in sorted(set(lengths)):
        texts = [index for index, own_length in enumerate(lengths) if own_length == length]
        for start in range(0, len(texts), TEXTS_PER_CALL):
            batch = _fill(texts[start : start + TEXTS_PER_CALL], vectors)
            step = max(1, ROWS_PER_CALL // (1 + vectors + len(batch) * length))
            calls += [
                TextCall(batch, (first, min(first + step, contexts))) for first in range(0, contexts, step)
            ]
    return calls


def _fill(texts: list[int], vectors: int) -> tuple[int, ...]:
    """Return the texts of a call, with the last one repeated where the kernels need more."""
    multiple = MULTIPLE_WITHOUT_CONTEXT if vectors == 0 else 1
    count = max(2, -(-len(texts) // multiple) * multiple)
    return (*texts, *[texts[-1]] * (count - len(texts)))
