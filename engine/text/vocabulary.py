"""CLIP's vocabulary: a list of merges in a gzip file, read within bounds."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError, reason
from ..ordinary_files import check_ordinary

WORD_END = "</w>"
BYTE_TOKENS = 512  # for each byte a symbol inside of a word, and one at its end
PUBLISHED_START = 49_406  # start token of OpenAI's vocabulary, so 48,894 merges
MAX_MERGES = 1 << 20
MAX_LINE = 1024  # bytes
MAX_FILE_BYTES = 1 << 26


@dataclass(frozen=True)
class Vocabulary:
    """Tokens of a CLIP-like text tower.

    Symbols are texts in which every byte is one character (`list_byte_symbols`); those that end a word end in
    `</w>`.

    Attributes:
        ids: identifier of every symbol.
        ranks: of two neighbouring symbols that are merged; the lowest rank is merged first.
        start: identifier of the token before every text.
        end: identifier of the token after it, the last one.
    """

    ids: Mapping[str, int]
    ranks: Mapping[tuple[str, str], int]
    start: int
    end: int


def list_byte_symbols() -> dict[int, str]:
    """Return the character that stands for each byte: visible Latin-1 itself, and U+0100 and on for others.

    The order is that of the identifiers.
    """
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {byte: chr(byte) for byte in visible} | {byte: chr(256 + i) for i, byte in enumerate(hidden)}


def read_vocabulary(path: Path, start: int = PUBLISHED_START) -> Vocabulary:
    """Read a vocabulary in the format of CLIP's `bpe_simple_vocab_16e6.txt.gz`.

    The first line is a title with `#version`; each further line is a merge, two symbols and a space between
    them. The identifiers are 512 symbols for bytes, one for each merge in order, start and end.

    Args:
        path: the gzip file.
        start: identifier of the start token; it says how many merges of the file are used, `start - 512`.

    Raises:
        InputError: the file cannot be read, is no such list, or has fewer merges.
    """
    count = start - BYTE_TOKENS
    if not 0 <= count <= MAX_MERGES:
        raise InputError(
            f"expected a start token in {BYTE_TOKENS}..{BYTE_TOKENS + MAX_MERGES:,}, found {start:,}"
        )
    symbols = list(list_byte_symbols().values())
    symbols += [symbol + WORD_END for symbol in symbols]
    ids = {symbol: index for index, symbol in enumerate(symbols)}
    ranks: dict[tuple[str, str], int] = {}
    for number, (first, second) in _read_merges(path, count):
        if first not in ids or second not in ids or (first, second) in ranks:
            raise InputError(
                f"expected a new merge of two symbols of earlier lines in line {number} of the vocabulary "
                f"{path}, found {first!r} and {second!r}; it is no vocabulary of CLIP's format"
            )
        ranks[first, second] = len(ranks)
        ids[first + second] = BYTE_TOKENS + len(ranks) - 1
    if len(ranks) != count:
        raise InputError(f"expected {count:,} merges in the vocabulary {path}, found {len(ranks):,}")
    return Vocabulary(ids, ranks, start, start + 1)


def _read_merges(path: Path, count: int) -> Iterator[tuple[int, tuple[str, str]]]:
    """Yield up to `count` merges with the numbers of their lines.

    Raises:
        InputError: the file cannot be read, or a line is no merge.
    """
    try:
        check_ordinary(path)
        if (size := path.stat().st_size) > MAX_FILE_BYTES:
            raise InputError(
                f"expected at most {MAX_FILE_BYTES:,} bytes in the vocabulary {path}, found {size:,}"
            )
        with gzip.open(path) as stream:
            if b"#version" not in stream.readline(MAX_LINE):
                raise InputError(
                    f"expected #version in the first line of the vocabulary {path}; CLIP's format begins so"
                )
            for number in range(2, count + 2):
                line = stream.readline(MAX_LINE)
                fields = line.decode().split()
                if not fields:  # the end
                    return
                if len(fields) != 2 or (len(line) == MAX_LINE and not line.endswith(b"\n")):
                    raise InputError(
                        f"expected two symbols in line {number} of the vocabulary {path}, found {line[:40]!r}"
                    )
                yield number, (fields[0], fields[1])
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InputError(
            f"cannot read the vocabulary {path}: {reason(error)}; expected a gzip file of text in UTF-8"
        ) from error
