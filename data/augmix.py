"""AugMix as TPT applies it to views: chains of mild operations, mixed with the image (ICLR 2020, severity 1).

The published code mixes normalised images. Weights add up to 1 and normalisation is affine, so mixing bytes
is the same up to rounding, which is at most half a level.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

CHAINS = 3
LONGEST_CHAIN = 3
WEAKEST_LEVEL = 0.1  # levels are uniform from here to 1, the severity
POSTERIZE_BITS = 4  # the level rounds to 0, so that 4 of 8 bits are always kept
MOST_DEGREES = 3
MOST_SOLARIZE = 25.6
MOST_SHEAR = 0.03
MOST_TRANSLATION = 1 / 30  # of the side

Pixels = NDArray[np.uint8]
Operation = Callable[[Image.Image, np.random.Generator], Image.Image]
Matrix = tuple[float, float, float, float, float, float]


def mix_augmentations(image: Image.Image, generator: np.random.Generator) -> Pixels:
    """Mix an image with three chains of one to three random operations each.

    The weights are `m` for the image and `(1 − m) w_i` for the chains, with m uniform in [0, 1] and w from
    Dirichlet(1, 1, 1).

    Args:
        image: RGB, at the size that the model reads.
        generator: source of all random numbers.

    Returns:
        uint8 `[H, W, 3]`.
    """
    weights = -np.log1p(-generator.random(CHAINS))  # exponential variables; normalised, they are Dirichlet
    weights /= weights.sum()
    share = generator.random()
    mix = share * np.asarray(image, np.float64)
    for weight in weights:
        mix += (1 - share) * weight * np.asarray(_apply_chain(image, generator), np.float64)
    return cast(Pixels, np.rint(mix).astype(np.uint8))


def _apply_chain(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    for _ in range(generator.integers(1, LONGEST_CHAIN + 1)):
        image = _DRAWABLE[generator.integers(len(_DRAWABLE))](image, generator)
    return image


def autocontrast(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    """Stretch every channel to the whole range."""
    return ImageOps.autocontrast(image)


def equalize(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    """Make every channel's histogram uniform."""
    return ImageOps.equalize(image)


def posterize(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    """Keep the upper four bits."""
    return ImageOps.posterize(image, POSTERIZE_BITS)


def rotate(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    """Turn by whole degrees below 3, either way; corners become black."""
    degrees = int(_draw_level(generator) * MOST_DEGREES)
    return image.rotate(_draw_sign(generator) * degrees, resample=Image.Resampling.BILINEAR)


def solarize(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    """Invert the brightest levels."""
    return ImageOps.solarize(image, 256 - int(_draw_level(generator) * MOST_SOLARIZE))


def shear_x(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    """Shear horizontally."""
    return _transform(image, (1, _draw_shear(generator), 0, 0, 1, 0))


def shear_y(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    """Shear vertically."""
    return _transform(image, (1, 0, 0, _draw_shear(generator), 1, 0))


def translate_x(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    """Move horizontally by whole pixels; what comes in is black."""
    return _transform(image, (1, 0, _draw_translation(generator, image.width), 0, 1, 0))


def translate_y(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    """Move vertically by whole pixels; what comes in is black."""
    return _transform(image, (1, 0, 0, 0, 1, _draw_translation(generator, image.height)))


OPERATIONS: Mapping[str, Operation] = MappingProxyType(
    {
        operation.__name__: operation
        for operation in (
            autocontrast,
            equalize,
            posterize,
            rotate,
            solarize,
            shear_x,
            shear_y,
            translate_x,
            translate_y,
        )
    }
)
_DRAWABLE = tuple(OPERATIONS.values())


def _draw_level(generator: np.random.Generator) -> float:
    return WEAKEST_LEVEL + (1 - WEAKEST_LEVEL) * generator.random()


def _draw_sign(generator: np.random.Generator) -> int:
    return -1 if generator.random() < 0.5 else 1


def _draw_shear(generator: np.random.Generator) -> float:
    return _draw_level(generator) * MOST_SHEAR * _draw_sign(generator)


def _draw_translation(generator: np.random.Generator, side: int) -> int:
    return int(_draw_level(generator) * MOST_TRANSLATION * side) * _draw_sign(generator)


def _transform(image: Image.Image, matrix: Matrix) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix, resample=Image.Resampling.BILINEAR)
