"""Random directions inside of a graph: the same words as `engine/search/philox.py` draws, to the bit."""

from __future__ import annotations

import math

import numpy as np

from ...engine.search.philox import BITS, MASK, WORDS_PER_BLOCK, mix_words
from .tensor import Tensor, concatenate, where


def draw_words(seed: Tensor, step: Tensor, sample: int, images: Tensor, count: int) -> Tensor:
    """Return random words for each image, int64 `[N, count rounded up to a multiple of 4]`.

    Args:
        seed, step: int64 scalars.
        sample: number of the draw within a step.
        images: N, int64 `[1]`.
        count: words for an image.
    """
    graph = seed.graph
    blocks = -(-count // WORDS_PER_BLOCK)
    block = graph.constant(np.arange(blocks)[None, :], np.int64)
    stop = images.reshape()
    image = graph.apply("Range", [graph.constant(0, np.int64), stop, graph.constant(1, np.int64)])
    shape = concatenate([images, graph.constant([blocks], np.int64)])
    counter = [
        block.expand(shape),
        image.reshape(-1, 1).expand(shape),
        (step & MASK).reshape(1, 1).expand(shape),
        graph.constant([[sample]], np.int64).expand(shape),
    ]
    words = mix_words(counter, (seed & MASK, seed >> BITS))
    return concatenate([word.reshape(0, blocks, 1) for word in words], axis=2).reshape(0, -1)


def draw_signs(seed: Tensor, step: Tensor, sample: int, images: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return −1 or 1 for each image, float32 `[N, *shape]`."""
    graph, count = seed.graph, math.prod(shape)
    words = draw_words(seed, step, sample, images, -(-count // BITS)).reshape(0, -1, 1)
    masks = graph.constant((1 << np.arange(BITS)).reshape(1, 1, -1), np.int64)
    one = graph.constant(1.0, np.float32)
    signs = where((words & masks).equals(0), -one, one)
    return signs.reshape(0, -1).slice(0, count, 1).reshape(-1, *shape)


def draw_normal(seed: Tensor, step: Tensor, sample: int, images: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return standard normal values for each image, float32 `[N, *shape]`."""
    graph, count = seed.graph, math.prod(shape)
    pairs = -(-count // 2)
    words = draw_words(seed, step, sample, images, 2 * pairs).cast(np.float64)
    uniform = (words + 0.5) / 2.0**BITS
    radius = (uniform.slice(0, pairs, 1).log() * -2.0).sqrt()
    angle = uniform.slice(pairs, 2 * pairs, 1) * (2 * math.pi)
    # Sine of a quarter turn more is the cosine, which runtimes have in float32 alone.
    turned = graph.apply("Sin", [angle + math.pi / 2])
    values = concatenate([radius * turned, radius * graph.apply("Sin", [angle])], axis=1)
    return values.slice(0, count, 1).cast(np.float32).reshape(-1, *shape)
