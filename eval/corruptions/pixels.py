"""Shared tools of the corruptions: pixels to 8 bits, lengths, borders, sampling and smoothing."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
Array = NDArray[np.float64]

REFERENCE_SIZE = 224
LARGEST_ASPECT = 4


def to_uint8(pixels: NDArray[np.floating]) -> Pixels:
    """0..1 to 0..255, rounded down; the small term keeps 254.9999999 from becoming 254."""
    scaled: NDArray[np.floating] = np.clip(pixels, 0, 1) * 255 + 1e-6
    return scaled.astype(np.uint8)


def scale(image: Pixels) -> float:
    """Return the factor of lengths in pixels."""
    shorter: int = min(image.shape[:2])
    return shorter / REFERENCE_SIZE


def reference_shape(image: Pixels) -> tuple[int, int]:
    """Height and width of the image if its shorter side had 224 pixels, at most 4 times as long as wide."""
    height, width = (
        min(round(side / scale(image)), LARGEST_ASPECT * REFERENCE_SIZE) for side in image.shape[:2]
    )
    return height, width


def fit(layer: Array, image: Pixels) -> Array:
    """Brings a layer [H, W] that was made in the reference shape to the shape of the image."""
    height, width = image.shape[:2]
    if layer.shape == (height, width):
        return layer
    resized = Image.fromarray(layer.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized, np.float64)


def mirror(index: NDArray[np.int64], length: int, edge: int) -> NDArray[np.int64]:
    """Folds indices back into 0..length-1; `edge` 1 does not repeat the border pixel, 0 does."""
    if length == 1:
        return np.zeros_like(index)
    period = 2 * (length - edge)
    folded = index % period
    return np.minimum(folded, period - 1 + edge - folded)


def reflecting_blur(length: int, taps: Array, edge: int) -> Array:
    """The matrix [length, length] that filters a signal with symmetric `taps`, mirroring at its ends."""
    return _filter(length, taps, lambda index: mirror(index, length, edge))


def _filter(length: int, taps: Array, fold: Callable[[NDArray[np.int64]], NDArray[np.int64]]) -> Array:
    """The matrix [length, length] of a filter; `fold` brings indices beyond the ends back."""
    reach = len(taps) // 2
    matrix = np.zeros((length, length))
    rows = np.arange(length)
    for offset, tap in zip(range(-reach, reach + 1), taps, strict=True):
        np.add.at(matrix, (rows, fold(rows + offset)), tap)
    return matrix


def _gaussian_taps(reach: int, sigma: float) -> Array:
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return np.asarray(taps / taps.sum(), np.float64)


@lru_cache(maxsize=16)
def _build_mirrored_gaussian(length: int, sigma: float) -> Array:
    """Gaussian smoothing of a signal, cut off at three standard deviations."""
    return reflecting_blur(length, _gaussian_taps(int(3 * sigma + 0.5), sigma), edge=0)


def smooth(field: Array, sigma: float) -> Array:
    """Smooths [H, W] by a Gaussian up to three standard deviations, mirroring at the border."""
    height, width = field.shape
    result: Array = _build_mirrored_gaussian(height, sigma) @ field @ _build_mirrored_gaussian(width, sigma).T
    return result


@lru_cache(maxsize=32)
def _repeating_gaussian(length: int, sigma: float) -> Array:
    taps = _gaussian_taps(int(4 * sigma + 0.5), sigma)
    return _filter(length, taps, lambda index: np.clip(index, 0, length - 1))


def gaussian(pixels: Array, sigma: float) -> Array:
    """Blurs [H, W, C] by a Gaussian up to four standard deviations, repeating the border pixels."""
    height, width, channels = pixels.shape
    down = _repeating_gaussian(height, sigma) @ pixels.reshape(height, width * channels)
    blurred: Array = _repeating_gaussian(width, sigma) @ down.reshape(height, width, channels)
    return blurred


def bilinear(pixels: Array, rows: Array, columns: Array, edge: int) -> Array:
    """Samples [H, W, C] at fractional places, mirroring outside; the result has the places' shape."""
    height, width = pixels.shape[:2]
    top, left = np.floor(rows).astype(np.int64), np.floor(columns).astype(np.int64)
    down, right = (rows - top)[..., None], (columns - left)[..., None]
    row = [mirror(top + step, height, edge) * width for step in (0, 1)]
    column = [mirror(left + step, width, edge) for step in (0, 1)]
    flat = pixels.reshape(height * width, -1)
    upper = flat[row[0] + column[0]] * (1 - right) + flat[row[0] + column[1]] * right
    lower = flat[row[1] + column[0]] * (1 - right) + flat[row[1] + column[1]] * right
    sampled: Array = upper * (1 - down) + lower * down
    return sampled


def zoom_grid(length: int, factor: float) -> tuple[int, float, float]:
    """Where the middle of a side comes from when it is enlarged, ends kept on ends.

    Returns:
        How many of the `length` pixels are enlarged, and in them the place of the result's first pixel and
        the step from one to the next.
    """
    cropped = int(np.ceil(length / factor))
    enlarged = round(cropped * factor)
    step = (cropped - 1) / (enlarged - 1) if enlarged > 1 else 1.0
    return cropped, (enlarged - length) // 2 * step, step


def streak(radius: float, sigma: float, angle: float) -> tuple[Array, NDArray[np.int64]]:
    """Weights and offsets (rows, columns) of a smear to one side, as ImageMagick does; angle in radians."""
    steps = np.arange(2 * int(np.ceil(radius)) + 1)
    weights = np.exp(-0.5 * (steps / sigma) ** 2)
    offsets = np.ceil(np.outer(steps, (np.sin(angle), np.cos(angle))) - 0.5).astype(int)
    return weights / weights.sum(), offsets


def weighted_shifts(pixels: Array, weights: Array, offsets: NDArray[np.int64]) -> Array:
    """Sums `weights[k]` times the image read at `offsets[k]` (rows, columns), repeating the border pixels."""
    height, width = pixels.shape[:2]
    reach = int(np.abs(offsets).max())
    padded = np.pad(pixels, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    total = np.zeros_like(pixels)
    for weight, (down, right) in zip(weights, offsets + reach, strict=True):
        total += weight * padded[down : down + height, right : right + width]
    return total
