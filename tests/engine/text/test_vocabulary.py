"""Vocabulary files: what is read, and what is refused before it costs anything."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from fozo.engine.errors import InputError
from fozo.engine.text.vocabulary import read_vocabulary
from text_doubles import write_vocabulary

MERGES = [("a", "b"), ("ab", "c</w>"), ("a", "bc</w>")]


def test_identifiers_follow_the_lines(tmp_path: Path) -> None:
    vocabulary = read_vocabulary(write_vocabulary(tmp_path / "words.gz", MERGES[:2]), start=514)
    assert (vocabulary.ids["!"], vocabulary.ids["a"], vocabulary.ids["!</w>"]) == (0, 64, 256)
    assert (vocabulary.ids["ab"], vocabulary.ids["abc</w>"]) == (512, 513)
    assert (vocabulary.start, vocabulary.end, len(vocabulary.ids)) == (514, 515, 514)


def test_lines_after_the_last_merge_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "words.gz"
    path.write_bytes(gzip.compress(b"#version\na b\n" + b"\xff no merge at all\n" * 3))
    assert len(read_vocabulary(path, start=513).ranks) == 1


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "#version in the first line"),
        (b"a b\nab c\n", "#version in the first line"),
        (b"#version\na b\n", "expected 2 merges in the vocabulary .*, found 1"),
        (b"#version\na b\nab\n", "two symbols in line 3"),
        (b"#version\na b\nab c d\n", "two symbols in line 3"),
        (b"#version\na b\na b\n", "a new merge of two symbols of earlier lines in line 3"),
        (b"#version\na b\nabc a\n", "a new merge of two symbols of earlier lines in line 3"),
        (b"#version\na b\n\xff\xfe a\n", "cannot read the vocabulary"),
        (b"#version\na b\n" + b"a" * 5000 + b" b\n", "two symbols in line 3"),
    ],
)
def test_files_that_are_no_vocabulary(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "words.gz"
    path.write_bytes(gzip.compress(content))
    with pytest.raises(InputError, match=reason):
        read_vocabulary(path, start=514)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    path = write_vocabulary(tmp_path / "words.gz", MERGES)
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(InputError, match="cannot read the vocabulary"):
        read_vocabulary(path, start=515)
    path.write_bytes(b"#version\na b\n")
    with pytest.raises(InputError, match="expected a gzip file of text"):
        read_vocabulary(path, start=513)
    for other in (tmp_path, tmp_path / "none.gz"):
        with pytest.raises(InputError, match="cannot read the vocabulary"):
            read_vocabulary(other, start=513)
    with path.open("r+b") as stream:
        stream.truncate((1 << 26) + 1)
    with pytest.raises(InputError, match="at most 67,108,864 bytes"):
        read_vocabulary(path, start=513)


@pytest.mark.parametrize("start", [-1, 511, 1 << 30])
def test_numbers_of_merges_that_cannot_be(tmp_path: Path, start: int) -> None:
    with pytest.raises(InputError, match="expected a start token in 512"):
        read_vocabulary(tmp_path / "none.gz", start)
