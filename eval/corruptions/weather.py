"""Snow, frost and fog: layers that are made at 224 pixels and resized to the image."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from ...data.image_names import SUFFIXES
from ...data.images import read_image
from ...engine.errors import InputError
from .pixels import (
    Array,
    Pixels,
    build_streak,
    compute_reference_shape,
    compute_zoom_grid,
    fit,
    sample_bilinear,
    sum_shifts,
    to_uint8,
)

# Mean and standard deviation of the flakes, their size, and the threshold; radius and standard deviation of
# their smear; and the share of the image's own colour.
SNOW = (
    (0.1, 0.3, 3.0, 0.5, 10, 4, 0.8),
    (0.2, 0.3, 2.0, 0.5, 12, 4, 0.7),
    (0.55, 0.3, 4.0, 0.9, 12, 8, 0.7),
    (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
    (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
)
SNOW_ANGLES = (-135.0, -45.0)
GREY = (0.299, 0.587, 0.114)
FROST_IMAGE_TEXTURE = ((1.0, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))
# The published code has a sixth texture but never draws it.
FROST_TEXTURES = 5
FROST_SOURCE = (
    "download frost1.png to frost6.jpg from ImageNet-C's code (github.com/hendrycks/robustness, folder "
    "ImageNet-C/create_c), and name their folder with --frost-textures"
)
FOG_AMOUNT_DECAY = ((1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4))
FOG_SIDE = 256
FOG_ROUGHNESS = 100.0


def snow(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Whiten the image and add flakes, smeared within 45 degrees of the vertical, and again upside down."""
    mean, std, size, threshold, radius, sigma, image_share = SNOW[severity - 1]
    down, across = (compute_zoom_grid(side, size) for side in compute_reference_shape(image))
    noise = rng.normal(mean, std, (down[0], across[0], 1))
    rows, columns = (
        first + step * np.arange(side)
        for side, (_, first, step) in zip(compute_reference_shape(image), (down, across), strict=True)
    )
    grid = np.meshgrid(rows, columns, indexing="ij")
    flakes = sample_bilinear(noise, grid[0], grid[1], edge=1)
    flakes = to_uint8(np.where(flakes < threshold, 0, flakes)) / 255
    angle = np.deg2rad(rng.uniform(*SNOW_ANGLES))
    layer = fit(sum_shifts(flakes, *build_streak(radius, sigma, angle))[..., 0], image)
    pixels = image / 255
    white = np.maximum(pixels, (pixels @ GREY * 1.5 + 0.5)[..., None])
    return to_uint8(image_share * pixels + (1 - image_share) * white + (layer + layer[::-1, ::-1])[..., None])


def frost(image: Pixels, severity: int, rng: np.random.Generator, textures: tuple[Pixels, ...]) -> Pixels:
    """Add a random piece of one of the textures; a texture that is smaller than the piece is stretched."""
    image_share, share = FROST_IMAGE_TEXTURE[severity - 1]
    texture = textures[rng.integers(len(textures))]
    sides = [min(pair) for pair in zip(compute_reference_shape(image), texture.shape[:2], strict=True)]
    top, left = (
        int(rng.integers(max(length - side, 1)))
        for length, side in zip(texture.shape[:2], sides, strict=True)
    )
    piece = Image.fromarray(texture[top : top + sides[0], left : left + sides[1]])
    if tuple(sides) != image.shape[:2]:
        piece = piece.resize((image.shape[1], image.shape[0]), Image.Resampling.BILINEAR)
    return to_uint8((image_share * image + share * np.asarray(piece)) / 255)


def fog(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Add a plasma fractal, and scale so that the lightest value can stay the lightest."""
    amount, decay = FOG_AMOUNT_DECAY[severity - 1]
    fractal = generate_plasma(decay, rng)
    height, width = compute_reference_shape(image)
    layer = fit(fractal[np.ix_(np.arange(height) % FOG_SIDE, np.arange(width) % FOG_SIDE)], image)
    lightest = image.max() / 255
    return to_uint8((image / 255 + amount * layer[..., None]) * (lightest / (lightest + amount)))


def generate_plasma(decay: float, rng: np.random.Generator) -> Array:
    """Return heights 0..1 `[256, 256]` by the diamond-square algorithm on a torus.

    Beginning with one height, each step halves the spacing of the grid: the middle of every square, then of
    every edge, becomes the mean of its four neighbours plus a uniform random number. The range of the random
    numbers is divided by `decay` after each step.
    """
    heights = np.zeros((1, 1))
    rough = FOG_ROUGHNESS
    while len(heights) < FOG_SIDE:
        side = len(heights)
        # The published code multiplies the roughness by a random number of the same range.
        middle, beside, below = rng.uniform(-(rough**2), rough**2, (3, side, side))
        pairs = heights + np.roll(heights, -1, axis=1)
        middle += (pairs + np.roll(pairs, -1, axis=0)) / 4
        beside += (pairs + middle + np.roll(middle, 1, axis=0)) / 4
        below += (heights + np.roll(heights, -1, axis=0) + middle + np.roll(middle, 1, axis=1)) / 4
        finer = np.empty((side, 2, side, 2))
        finer[:, 0, :, 0], finer[:, 0, :, 1] = heights, beside
        finer[:, 1, :, 0], finer[:, 1, :, 1] = below, middle
        heights = finer.reshape(2 * side, 2 * side)
        rough /= decay
    heights -= heights.min()
    return np.asarray(heights / heights.max(), np.float64)


@lru_cache(maxsize=2)
def load_frost_textures(folder: Path | None) -> tuple[Pixels, ...]:
    """Return the first five of the six textures of ImageNet-C; the sixth is never used.

    Raises:
        InputError: no folder is given, or a texture is missing or cannot be read.
    """
    if folder is None:
        raise InputError(f"frost needs textures that do not come with fozo: {FROST_SOURCE}")
    candidates = [
        next((path for suffix in SUFFIXES if (path := folder / f"frost{number}{suffix}").is_file()), None)
        for number in range(1, FROST_TEXTURES + 1)
    ]
    paths = [path for path in candidates if path is not None]
    if len(paths) < FROST_TEXTURES:
        missing = ", ".join(f"frost{number}" for number, path in enumerate(candidates, 1) if path is None)
        raise InputError(
            f"expected frost's textures in {folder}, missing: {missing} (as .png or .jpg); {FROST_SOURCE}"
        )
    return tuple(np.asarray(read_image(path)) for path in paths)
