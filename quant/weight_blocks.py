"""Weights of 4 bits in blocks, as MatMulNBits of ONNX Runtime reads: two in a byte, a scale per block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ..engine.model import FloatArray
from .clip_search import search_scales

BLOCK_ROWS = 32  # weights of a column that share a scale
BLOCK_BITS = 4
SMALLEST, LARGEST = -8, 7
_ZERO = 8  # of the unsigned integers in the file
_Scalar = TypeVar("_Scalar", bound=np.generic)


def count_blocks(rows: int) -> int:
    """Return the number of blocks in a column; the last one may be shorter."""
    return -(-rows // BLOCK_ROWS)


def search_block_scales(weight: FloatArray) -> FloatArray:
    """Return the scales of the blocks of a weight `[K, M]` with the least squared error, float32 `[B, M]`."""
    return search_scales(_split(weight), (SMALLEST, LARGEST))


def repeat_scales(scale: FloatArray, rows: int) -> FloatArray:
    """Return the scale of every weight `[K, M]`, given those of the blocks `[B, M]`."""
    return np.repeat(scale, BLOCK_ROWS, axis=0)[:rows]


def pack_blocks(integers: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Return integers `[K, M]` as bytes `[M, B, 16]`; the first of two integers takes the lower half."""
    blocks = _split(integers).astype(np.uint8) + np.uint8(_ZERO)
    columns = (blocks & np.uint8(15)).transpose(2, 0, 1)
    return np.ascontiguousarray(columns[..., ::2] | (columns[..., 1::2] << np.uint8(4)))


def list_attributes(integers: NDArray[np.int8]) -> Mapping[str, int]:
    """Return the attributes of a MatMulNBits whose activations and sums are float32."""
    rows, columns = integers.shape
    return {"K": rows, "N": columns, "bits": BLOCK_BITS, "block_size": BLOCK_ROWS, "accuracy_level": 1}


def _split(weight: NDArray[_Scalar]) -> NDArray[_Scalar]:
    """Return a weight `[K, M]` as blocks `[B, 32, M]`, padded with zeros."""
    rows, columns = weight.shape
    padded = np.zeros((count_blocks(rows) * BLOCK_ROWS, columns), weight.dtype)
    padded[:rows] = weight
    return padded.reshape(-1, BLOCK_ROWS, columns)
