"""Messages of ONNX files as bytes: their fields, found and written without the onnx package.

This is the wire format of Google's protocol buffers, as far as ONNX uses it: a message is a sequence of
fields, each with a number and a value, and a value may be a message.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import NamedTuple

VARINT, BYTES = 0, 2
_SIZES = {1: 8, 5: 4}  # of the other wire types that are in use

Content = bytes | mmap.mmap


class Field(NamedTuple):
    """One field of a message: its number and wire type, and where its value is."""

    number: int
    wire: int
    start: int
    end: int


def iterate_fields(content: Content, message: Field) -> Iterator[Field]:
    """Yield the fields of a message in order, without reading their values.

    Raises:
        ValueError: it is no message, or is malformed.
    """
    if message.wire != BYTES:
        raise ValueError(f"field {message.number} is no message")
    position, end = message.start, message.end
    while position < end:
        tag, position = read_varint(content, position, end)
        number, wire = tag >> 3, tag & 7
        if not 0 < number < 1 << 29:
            raise ValueError(f"there is no field {number}")
        start, position = _locate_value(content, wire, position, end)
        if position > end:
            raise ValueError(f"field {number} ends outside of its message, as if the file were truncated")
        yield Field(number, wire, start, position)


def read_varint(content: Content, position: int, end: int) -> tuple[int, int]:
    """Return an integer of variable length, and the position after it.

    Raises:
        ValueError: it is too long or cut off.
    """
    value = 0
    for index, byte in enumerate(content[position : min(position + 10, end)]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, position + index + 1
    raise ValueError("a number is too long or cut off")


def encode_number(number: int, value: int) -> bytes:
    """Return a field with an integer of at least 0."""
    return _encode_varint(number << 3 | VARINT) + _encode_varint(value)


def encode_bytes(number: int, value: bytes | str) -> bytes:
    """Return a field with bytes, a text or a message."""
    value = value.encode() if isinstance(value, str) else value
    return encode_length(number, len(value)) + value


def encode_length(number: int, length: int) -> bytes:
    """Return what stands in front of the `length` bytes of a field."""
    return _encode_varint(number << 3 | BYTES) + _encode_varint(length)


def _encode_varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _locate_value(content: Content, wire: int, position: int, end: int) -> tuple[int, int]:
    """Return where a value starts and ends."""
    if wire == VARINT:
        return position, read_varint(content, position, end)[1]
    if wire == BYTES:
        length, position = read_varint(content, position, end)
        return position, position + length
    if wire not in _SIZES:
        raise ValueError(f"wire type {wire} is not in use")
    return position, position + _SIZES[wire]
