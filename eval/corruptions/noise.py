"""Noises: Gaussian, shot, impulse and speckle."""

from __future__ import annotations

import numpy as np

from .pixels import Pixels, to_uint8

GAUSSIAN_STD = (0.08, 0.12, 0.18, 0.26, 0.38)
SHOT_PHOTONS = (60, 25, 12, 5, 3)
IMPULSE_SHARE = (0.03, 0.06, 0.09, 0.17, 0.27)
SPECKLE_STD = (0.15, 0.2, 0.35, 0.45, 0.6)


def gaussian_noise(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Add noise of a normal distribution, independent for every value."""
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    return to_uint8(image / 255 + GAUSSIAN_STD[severity - 1] * noise)


def shot_noise(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Replace every value by a Poisson count of the photons that it stands for."""
    photons = SHOT_PHOTONS[severity - 1]
    return to_uint8(rng.poisson(image / 255 * photons) / photons)


def impulse_noise(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Set a share of the values, each channel on its own, to black or white with equal chance."""
    share = IMPULSE_SHARE[severity - 1]
    draw = rng.random(image.shape)
    return np.where(draw < share / 2, np.uint8(0), np.where(draw < share, np.uint8(255), image))


def speckle_noise(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Add noise of a normal distribution in proportion to the value, independent for every value."""
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    return to_uint8(image / 255 * (1 + SPECKLE_STD[severity - 1] * noise))
