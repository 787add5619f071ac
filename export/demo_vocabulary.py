"""Vocabulary of the demonstration's text side: byte pairs in the format of CLIP's own vocabulary file.

    python -m fozo.export.demo_vocabulary

The first line is a comment, each further line a pair of symbols to merge, in order of rank. There is no line
feed at the end, because open_clip's reader takes the empty line for one more pair.
"""

from __future__ import annotations

import gzip
import itertools
import zlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from ..engine.errors import InputError, reason
from ..engine.files import write_atomic
from ..engine.text.tokenizer import Tokenizer
from ..engine.text.vocabulary import BYTE_TOKENS, WORD_END
from .demo_captions import list_caption_words

DEMO_VOCABULARY = Path(__file__).with_name("demo_clip_vocabulary.txt.gz")
_HEADER = "#version: fozo_demo_clip"
Pair = tuple[str, str]


def learn_merges(words: Iterable[str]) -> list[Pair]:
    """Return the merges that make each word one symbol, the most frequent pair first (Sennrich et al., 2016).

    Each word counts once. Among pairs of the same frequency, the first in alphabetical order is merged.

    Args:
        words: words of ASCII letters in lower case.
    """
    symbols = [(*word[:-1], word[-1] + WORD_END) for word in sorted(set(words))]
    merges = []
    while pairs := Counter(pair for word in symbols for pair in itertools.pairwise(word)):
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        symbols = [_merge(word, best) for word in symbols]
    return merges


def _merge(word: tuple[str, ...], pair: Pair) -> tuple[str, ...]:
    """Return a word in which each occurrence of the pair, from the left, is one symbol."""
    merged: list[str] = []
    for symbol in word:
        if merged and (merged[-1], symbol) == pair:
            merged[-1] += symbol
        else:
            merged.append(symbol)
    return tuple(merged)


def format_vocabulary(merges: Iterable[Pair]) -> bytes:
    """Return the content of a vocabulary file: gzip without name and time of the file."""
    lines = [_HEADER, *(" ".join(pair) for pair in merges)]
    return gzip.compress("\n".join(lines).encode(), mtime=0)


def read_demo_tokenizer() -> Tokenizer:
    """Return the tokenizer of the shipped vocabulary.

    Raises:
        InputError: the file is missing or damaged.
    """
    try:
        lines = gzip.decompress(DEMO_VOCABULARY.read_bytes()).splitlines()
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"cannot read the demonstration's vocabulary {DEMO_VOCABULARY}: {reason(error)}; install fozo "
            "again"
        ) from error
    return Tokenizer.read(DEMO_VOCABULARY, BYTE_TOKENS + len(lines) - 1)


if __name__ == "__main__":
    write_atomic(DEMO_VOCABULARY, format_vocabulary(learn_merges(list_caption_words())))
    print(f"wrote {DEMO_VOCABULARY}")
