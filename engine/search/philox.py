"""Philox4x32-10, a counter-based random generator (Salmon et al., SC 2011): words are a function of counters.

It needs nothing but 32-bit words and their products, so a graph of standard operators draws the same words
(`fozo compile`), and so does any language. Products are taken in halves of 16 bits: nothing exceeds 2⁴⁹, as
graphs have no unsigned products.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from ..model import FloatArray

Generator = Literal["numpy", "philox"]
GENERATOR_HELP = "generator of the random directions: NumPy's, or the one that compiled graphs have"
ROUNDS: Final = 10
MULTIPLIERS: Final = (0xD2511F53, 0xCD9E8D57)
KEY_STEPS: Final = (0x9E3779B9, 0xBB67AE85)
MASK: Final = 0xFFFFFFFF
WORDS_PER_BLOCK: Final = 4
BITS: Final = 32

Words = NDArray[np.int64]  # of 0..2³²−1


def compute_philox(counter: tuple[Words, Words, Words, Words], key: tuple[int, int]) -> Words:
    """Return the words of Philox4x32-10 for some counters, int64 `[…, 4]`.

    >>> zero = np.zeros(1, np.int64)
    >>> [f"{word:08x}" for word in compute_philox((zero, zero, zero, zero), (0, 0))[0]]
    ['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8']

    Args:
        counter: four words, arrays of shapes that broadcast to each other.
        key: two words.
    """
    return np.stack(mix_words(np.broadcast_arrays(*counter), key), axis=-1)


def mix_words(counter: Sequence[Any], key: tuple[Any, Any]) -> list[Any]:
    """Return the four words of Philox4x32-10, for whatever has the operators of integers.

    Args:
        counter: four words, such as arrays of one shape, or expressions of a graph.
        key: two words.
    """
    first, second, third, fourth = counter
    low_key, high_key = key
    for _ in range(ROUNDS):
        high_0, low_0 = _multiply(first, MULTIPLIERS[0])
        high_1, low_1 = _multiply(third, MULTIPLIERS[1])
        first, second = high_1 ^ second ^ low_key, low_1
        third, fourth = high_0 ^ fourth ^ high_key, low_0
        low_key, high_key = (low_key + KEY_STEPS[0]) & MASK, (high_key + KEY_STEPS[1]) & MASK
    return [first, second, third, fourth]


def _multiply(words: Any, factor: int) -> tuple[Any, Any]:
    """Return the high and the low word of a product."""
    low_half, high_half = words * (factor & 0xFFFF), words * (factor >> 16)
    high = (high_half + (low_half >> 16)) >> 16
    low = (((high_half & 0xFFFF) << 16) + low_half) & MASK
    return high, low


def draw_words(seed: int, step: int, sample: int, images: int, count: int) -> Words:
    """Return random words for each image of a step, int64 `[images, count rounded up to a multiple of 4]`.

    The key is the seed. The counter is (block of four words, image, step, sample), so the words of an image
    do not depend on how many there are.
    """
    blocks = -(-count // WORDS_PER_BLOCK)
    counter = (
        np.arange(blocks, dtype=np.int64)[None, :],
        np.arange(images, dtype=np.int64)[:, None],
        np.full((1, 1), step & MASK, np.int64),
        np.full((1, 1), sample, np.int64),
    )
    return compute_philox(counter, (seed & MASK, seed >> BITS)).reshape(images, blocks * WORDS_PER_BLOCK)


def draw_philox_signs(seed: int, step: int, sample: int, shape: tuple[int, ...]) -> FloatArray:
    """Draw −1 or 1 with equal probability, float32 of the given shape: the bits of words, lowest first.

    Args:
        seed, step, sample: as for `draw_words`.
        shape: `[images, …]`.
    """
    images, count = shape[0], int(np.prod(shape[1:]))
    words = draw_words(seed, step, sample, images, -(-count // BITS))
    bits = (words[..., None] >> np.arange(BITS)) & 1
    signs = bits.reshape(images, -1)[:, :count].astype(np.float32) * 2 - 1
    return signs.reshape(shape)


def draw_philox_normal(seed: int, step: int, sample: int, shape: tuple[int, ...]) -> FloatArray:
    """Draw standard normal values, float32 of the given shape, by the method of Box and Muller.

    Two words make two values: the first half of the words are radii, the second half angles.

    Args:
        seed, step, sample: as for `draw_words`.
        shape: `[images, …]`.
    """
    images, count = shape[0], int(np.prod(shape[1:]))
    pairs = -(-count // 2)
    words = draw_words(seed, step, sample, images, 2 * pairs)[:, : 2 * pairs]
    uniform = (words + 0.5) / 2.0**BITS
    radius, angle = np.sqrt(-2 * np.log(uniform[:, :pairs])), 2 * np.pi * uniform[:, pairs:]
    values = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return values[:, :count].astype(np.float32).reshape(shape)
