"""Flags of images, stored in one bit each and appended batch by batch."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class Bits:
    """A growing sequence of flags; two are equal if all their flags are."""

    def __init__(self, flags: NDArray[np.bool_] | Sequence[bool] = ()) -> None:
        self._packed = bytearray()
        self._count = 0
        self.append(np.asarray(flags, bool))

    def __len__(self) -> int:
        return self._count

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bits) and (len(self), self._packed) == (len(other), other._packed)

    def __repr__(self) -> str:
        return f"Bits({self.array().sum()} of {len(self)})"

    def append(self, flags: NDArray[np.bool_]) -> None:
        """Append `flags` `[N]`."""
        full_bytes = self._count // 8  # bytes that are full
        last_bits = self.array(full_bytes * 8)
        self._packed[full_bytes:] = np.packbits(np.concatenate([last_bits, flags])).tobytes()
        self._count += len(flags)

    def array(self, start: int = 0) -> NDArray[np.bool_]:
        """Return the flags from `start` on, a multiple of eight, bool `[N]`."""
        packed = np.frombuffer(bytes(self._packed[start // 8 :]), np.uint8)
        return np.unpackbits(packed, count=self._count - start).astype(bool)

    def to_json(self) -> str:
        """Return the bits as base64: eight to a byte in order, the first one highest."""
        return base64.b64encode(self._packed).decode()

    @staticmethod
    def from_json(text: str, count: int) -> Bits:
        """Return `count` bits from their text.

        Raises:
            ValueError: the text is not base64, or holds more or fewer bits.
        """
        packed = base64.b64decode(text, validate=True)
        if len(packed) != -(-count // 8):
            raise ValueError(
                f"expected {-(-count // 8)} bytes of flags for {count} images, found {len(packed)}"
            )
        bits = Bits(np.unpackbits(np.frombuffer(packed, np.uint8), count=count).astype(bool))
        if bits._packed != packed:
            raise ValueError(f"expected flags of {count} images, found more in the last byte")
        return bits
