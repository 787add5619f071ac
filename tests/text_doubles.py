"""Vocabularies in CLIP's format: for the tests of texts."""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from fozo.engine.text.vocabulary import PUBLISHED_START, list_byte_symbols

Merge = tuple[str, str]
# Merges of the published vocabulary by rank, as far as the sentences of the published vectors need them.
PUBLISHED_MERGES: Mapping[int, Merge] = {
    1: ("t", "h"),
    12: ("e", "n"),
    19: ("t", "o</w>"),
    21: ("i", "s</w>"),
    24: ("a", "t</w>"),
    27: ("o", "f</w>"),
    77: ("th", "is</w>"),
    78: ("t", "s</w>"),
    94: ("h", "o"),
    122: ("c", "h</w>"),
    235: ("e", "c"),
    304: ("p", "ho"),
    613: ("pho", "to</w>"),
    637: ("t", "en"),
    835: ("j", "ec"),
    899: ("o", "b"),
    1856: ("c", "at</w>"),
    7458: ("ob", "jec"),
    13258: ("objec", "ts</w>"),
}


def write_vocabulary(path: Path, merges: Sequence[Merge], title: str = '"#version: 0.2') -> Path:
    lines = [title, *(f"{first} {second}" for first, second in merges)]
    path.write_bytes(gzip.compress("\n".join([*lines, ""]).encode(), mtime=0))
    return path


def write_published_excerpt(path: Path) -> Path:
    """Write a vocabulary of the published size with `PUBLISHED_MERGES` and pairs of rare bytes."""
    rare = list(list_byte_symbols().values())[94:]  # not of ASCII
    fill = ((first, second) for first in rare for second in [*rare, *(f"{symbol}</w>" for symbol in rare)])
    merges = [PUBLISHED_MERGES.get(rank) or next(fill) for rank in range(PUBLISHED_START - 512)]
    return write_vocabulary(path, merges)


def published_vocabulary() -> Path:
    """Return the published vocabulary of open_clip, or skip the test and say why."""
    open_clip = pytest.importorskip("open_clip", reason="the published tokenizer is open_clip's")
    return Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"
