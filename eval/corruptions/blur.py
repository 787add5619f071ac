"""Blurs: defocus, frosted glass, motion, zoom and Gaussian."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .pixels import (
    Array,
    Pixels,
    blur_gaussian,
    build_reflecting_blur,
    build_streak,
    compute_scale,
    compute_zoom_grid,
    sum_shifts,
    to_uint8,
)

DEFOCUS_RADIUS_ALIAS = ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))
# Standard deviation of the blur, largest displacement in pixels, and number of rounds.
GLASS = ((0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2))
MOTION_RADIUS_SIGMA = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))
MOTION_LARGEST_ANGLE = 45.0
# End (exclusive, as np.arange computes it) and step of the factors, which begin at 1.
ZOOM_END_STEP = ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))
GAUSSIAN_BLUR_STD = (1, 2, 3, 4, 6)


def defocus_blur(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Convolve with the disk of a lens out of focus."""
    radius, alias = DEFOCUS_RADIUS_ALIAS[severity - 1]
    return to_uint8(convolve(image / 255, build_disk(radius * compute_scale(image), alias)))


def glass_blur(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Blur, let every pixel take the value of a nearby one in several rounds, and blur again."""
    sigma, reach, rounds = GLASS[severity - 1]
    sigma *= compute_scale(image)
    height, width = image.shape[:2]
    pixels = to_uint8(blur_gaussian(image / 255, sigma)).reshape(-1, 3)
    for _ in range(rounds):
        pixels = pixels[scatter_indices(height, width, reach, compute_scale(image), rng)]
    return to_uint8(blur_gaussian((pixels / 255).reshape(image.shape), sigma))


def motion_blur(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Smear to one side along a line within 45 degrees of the horizontal, as ImageMagick does."""
    radius, sigma = (length * compute_scale(image) for length in MOTION_RADIUS_SIGMA[severity - 1])
    angle = np.deg2rad(rng.uniform(-MOTION_LARGEST_ANGLE, MOTION_LARGEST_ANGLE))
    return to_uint8(sum_shifts(image / 255, *build_streak(radius, sigma, angle)))


def zoom_blur(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Average the image and enlargements of its middle, each rounded to 8 bits."""
    height, width = image.shape[:2]
    picture = Image.fromarray(image)
    factors = np.arange(1, *ZOOM_END_STEP[severity - 1])
    total = image.astype(np.float64)
    for factor in factors:
        left, right = _compute_span(width, factor)
        top, bottom = _compute_span(height, factor)
        box = (left, top, right, bottom)
        total += np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR, box))
    return to_uint8(total / (len(factors) + 1) / 255)


def gaussian_blur(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Convolve with a Gaussian."""
    return to_uint8(blur_gaussian(image / 255, GAUSSIAN_BLUR_STD[severity - 1] * compute_scale(image)))


@lru_cache(maxsize=64)
def build_disk(radius: float, alias: float) -> Array:
    """Return the kernel of a lens out of focus: a disk whose rim is softened by a small Gaussian.

    As in the paper's code, the Gaussian is mirrored at the border of the kernel's array. Where the disk
    touches the border (a radius of 8 or more), the kernel therefore sums to 1.01 instead of 1.

    Args:
        radius: in pixels.
        alias: standard deviation of the Gaussian, in pixels.

    Returns:
        Read-only float64 of shape [2r + 1, 2r + 1] with r = max(8, radius rounded up).
    """
    reach = max(8, int(np.ceil(radius)))
    row = np.arange(-reach, reach + 1)
    inside = (row[:, None] ** 2 + row**2 <= radius**2).astype(np.float64)
    taps = np.exp(-0.5 * (np.arange(-1, 2) if radius <= 8 else np.arange(-2, 3)) ** 2 / alias**2)
    blur = build_reflecting_blur(len(row), taps / taps.sum(), edge=1)
    kernel: Array = blur @ (inside / inside.sum()) @ blur.T
    kernel.setflags(write=False)
    return kernel


def convolve(pixels: Array, kernel: Array) -> Array:
    """Convolve each channel of `[H, W, C]` with a symmetric odd kernel, mirroring about the border pixels."""
    height, width = pixels.shape[:2]
    reach = len(kernel) // 2
    padded = np.pad(pixels, ((reach, reach), (reach, reach), (0, 0)), mode="reflect").transpose(2, 0, 1)
    size = (_find_fast_length(height + 2 * reach), _find_fast_length(width + 2 * reach))
    product = np.fft.rfft2(padded, size) * np.fft.rfft2(kernel, size)
    filtered: Array = np.fft.irfft2(product, size)
    inner: Array = filtered[:, 2 * reach : 2 * reach + height, 2 * reach : 2 * reach + width]
    return np.moveaxis(inner, 0, 2)


def scatter_indices(
    height: int, width: int, reach: int, scale: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return for each pixel the index of the pixel whose value it takes in one round of the glass.

    The published code visits the pixels from the last to the first. Each takes the current value of a pixel
    whose row and column are -reach to reach - 1 away. (The code is meant to exchange the two, but exchanging
    two views of one array copies.) A value can therefore travel several times in one round: a pixel that
    takes from a later one gets the value that the later one took before. This function follows all
    references to their ends at once, by doubling, and returns the result of the sequence.

    Args:
        height, width: of the image.
        reach: largest displacement at 224 pixels.
        scale: factor of lengths, for other sizes.
        rng: source of one displacement per pixel.

    Returns:
        Indices into the flattened image, of shape [height * width].
    """
    # At a scale of 1 the displacements are the integers from -reach to reach - 1.
    offset = np.floor((rng.uniform(-reach, reach, (2, height, width)) - 0.5) * scale + 0.5).astype(np.int64)
    row, column = np.mgrid[:height, :width]
    margin = max(int(np.ceil((reach + 0.5) * scale - 0.5)), 0)
    inner = (row > margin) & (row <= height - margin) & (column > margin) & (column <= width - margin)
    here = row * width + column
    source = np.clip(row + offset[0], 0, height - 1) * width + np.clip(column + offset[1], 0, width - 1)
    # Nodes 0..count-1 are pixels after their turn, and count..2*count-1 the same pixels before it.
    count = height * width
    later = inner & (source > here) & inner.ravel()[source]
    turn = np.where(inner, np.where(later, source, source + count), here + count).ravel()
    reference = np.concatenate([turn, np.arange(count, 2 * count)])
    while reference[:count].min(initial=count) < count:
        reference = reference[reference]
    origin: NDArray[np.int64] = reference[:count] - count
    return origin


def _compute_span(length: int, factor: float) -> tuple[float, float]:
    """Return the ends of the part that is enlarged to the entire side, with pixels as unit squares."""
    cropped, first, step = compute_zoom_grid(length, factor)
    begin = (length - cropped) // 2 + first + 0.5 - step / 2
    return begin, begin + length * step


def _find_fast_length(length: int) -> int:
    """Return the next length whose only prime factors are 2, 3 and 5."""
    while True:
        cofactor = length
        for prime in (2, 3, 5):
            while cofactor % prime == 0:
                cofactor //= prime
        if cofactor == 1:
            return length
        length += 1
