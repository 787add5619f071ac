"""CLIP's tokenizer from the standard library: texts to the identifiers of byte-pair tokens.

The rules are those of the published `SimpleTokenizer`: a cleaned text is split into words, and each word, as
bytes, is merged pair by pair in the order of the vocabulary (Sennrich et al., 2016, algorithm 1).
"""

from __future__ import annotations

import functools
import itertools
import re
from pathlib import Path

from ..errors import InputError
from .text_cleaning import clean_text
from .vocabulary import PUBLISHED_START, WORD_END, Vocabulary, list_byte_symbols, read_vocabulary

CONTROL_TOKENS = ("<start_of_text>", "<end_of_text>")
# Contractions, runs of letters, single digits, and runs of anything else.
_WORD = re.compile("'s|'t|'re|'ve|'m|'ll|'d|[a-z]+|[0-9]|[^a-z0-9 ]+")
# Consequences of ignoring case in the published pattern: the long s is an s to contractions, and the iota
# below a letter belongs to no word.
_ODD_KINDS = {"ſ": "s", "\u0345": " "}
_BYTES = list_byte_symbols()
CACHE_WORDS = 1 << 16


@functools.lru_cache(1 << 12)
def _classify(character: str) -> str:
    """Return an ASCII character of the same kind: a letter, a digit, or a sign."""
    if character.isascii() or character in _ODD_KINDS:
        return _ODD_KINDS.get(character, character)
    # Letters have a category L; other numeric characters are those of category N.
    return "a" if character.isalpha() else "0" if character.isnumeric() else "!"


class Tokenizer:
    """Texts to identifiers, as the text tower of the vocabulary was trained with.

    Attributes:
        vocabulary: symbols, merges, and the tokens for start and end.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        """Take a vocabulary; words are remembered, as class names and templates repeat them."""
        self.vocabulary = vocabulary
        self._encode_word = functools.lru_cache(CACHE_WORDS)(self._merge)

    @classmethod
    def read(cls, path: Path, start: int = PUBLISHED_START) -> Tokenizer:
        """Read the vocabulary of a tokenizer from a file.

        Args:
            path: the vocabulary, as `read_vocabulary` reads it.
            start: identifier of the start token.

        Raises:
            InputError: the file cannot be used.
        """
        return cls(read_vocabulary(path, start))

    def encode(self, text: str) -> tuple[int, ...]:
        """Return the identifiers of a text, without those of start and end.

        Raises:
            InputError: the text has characters that are refused (`clean_text`), or names a control token.
        """
        cleaned = clean_text(text)
        kinds = cleaned if cleaned.isascii() else "".join(map(_classify, cleaned))
        if any(token in kinds for token in CONTROL_TOKENS):
            raise InputError(f"expected a text without control tokens, found {text!r}; remove them")
        words = (cleaned[match.start() : match.end()] for match in _WORD.finditer(kinds))
        return tuple(identifier for word in words for identifier in self._encode_word(word))

    def _merge(self, word: str) -> tuple[int, ...]:
        """Return the identifiers of one word."""
        symbols = [_BYTES[byte] for byte in word.encode()]
        symbols[-1] += WORD_END
        ids, ranks = self.vocabulary.ids, self.vocabulary.ranks
        while len(symbols) > 1:
            pairs = itertools.pairwise(symbols)
            best = min(pairs, key=lambda pair: ranks.get(pair, len(ranks)))
            if best not in ranks:
                break
            symbols = _join(symbols, best)
        return tuple(ids[symbol] for symbol in symbols)


def _join(symbols: list[str], pair: tuple[str, str]) -> list[str]:
    """Return the symbols with every occurrence of a pair joined, from the left."""
    joined: list[str] = []
    position = 0
    while position < len(symbols):
        is_pair = (*symbols[position : position + 2],) == pair
        joined.append("".join(pair) if is_pair else symbols[position])
        position += 2 if is_pair else 1
    return joined
