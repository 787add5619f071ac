"""Files of strangers: only ordinary ones are read, of a bounded size."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from fozo.engine.ordinary_files import check_ordinary, parse_json, read_json, read_limited


@pytest.mark.skipif(os.name != "posix", reason="makes a pipe")
def test_pipes_and_devices_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        for read in (check_ordinary, lambda path: read_limited(path, 10), read_json):
            with pytest.raises(OSError, match="a pipe or a device, expected a file"):
                read(path)


def test_longer_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "long").write_bytes(b" " * 9 + b"17")
    for read in (read_limited, read_json):
        with pytest.raises(OSError, match="at most 10 bytes"):
            read(tmp_path / "long", 10)
    assert len(read_limited(tmp_path / "long", 11)) == 11
    assert read_json(tmp_path / "long", 11) == 17


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[" * 10**5, b'{"a":' * 10**5, "{}".encode("utf-16"), b'"\xed\xa0\x80"', b"9" * 5000],
    ids=["empty", "cut", "lists", "objects", "UTF-16", "half a character", "a long number"],
)
def test_what_is_no_json_raises_one_kind(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_json(content)


def test_a_byte_order_mark_makes_no_difference() -> None:
    assert parse_json("\ufeff[1]".encode()) == [1]
