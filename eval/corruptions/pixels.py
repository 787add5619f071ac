"""Pixel arithmetic that several corruptions share: rounding, scaling, mirroring, sampling and smoothing."""

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
    """Convert 0..1 to 0..255, rounded down; a small term keeps 254.9999999 from becoming 254."""
    scaled: NDArray[np.floating] = np.clip(pixels, 0, 1) * 255 + 1e-6
    return scaled.astype(np.uint8)


def compute_scale(image: Pixels) -> float:
    """Return the factor of lengths in pixels, 1 for a shorter side of 224."""
    shorter: int = min(image.shape[:2])
    return shorter / REFERENCE_SIZE


def compute_reference_shape(image: Pixels) -> tuple[int, int]:
    """Return height and width at a shorter side of 224 pixels; the longer one is at most 4 times as long."""
    height, width = (
        min(round(side / compute_scale(image)), LARGEST_ASPECT * REFERENCE_SIZE) for side in image.shape[:2]
    )
    return height, width


def fit(layer: Array, image: Pixels) -> Array:
    """Resize a layer `[H, W]` of the reference shape to the shape of the image."""
    height, width = image.shape[:2]
    if layer.shape == (height, width):
        return layer
    resized = Image.fromarray(layer.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized, np.float64)


def mirror(index: NDArray[np.int64], length: int, edge: int) -> NDArray[np.int64]:
    """Fold indices back into 0..length-1; `edge` 1 does not repeat the border pixel, 0 does."""
    if length == 1:
        return np.zeros_like(index)
    period = 2 * (length - edge)
    folded = index % period
    return np.minimum(folded, period - 1 + edge - folded)


def build_reflecting_blur(length: int, taps: Array, edge: int) -> Array:
    """Return the matrix `[length, length]` of a filter by symmetric `taps` that mirrors at the ends."""
    return _build_filter(length, taps, lambda index: mirror(index, length, edge))


def _build_filter(length: int, taps: Array, fold: Callable[[NDArray[np.int64]], NDArray[np.int64]]) -> Array:
    """Return the matrix `[length, length]` of a filter; `fold` maps indices beyond the ends to valid ones."""
    reach = len(taps) // 2
    matrix = np.zeros((length, length))
    rows = np.arange(length)
    for offset, tap in zip(range(-reach, reach + 1), taps, strict=True):
        np.add.at(matrix, (rows, fold(rows + offset)), tap)
    return matrix


def _compute_gaussian_taps(reach: int, sigma: float) -> Array:
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return np.asarray(taps / taps.sum(), np.float64)


@lru_cache(maxsize=16)
def _build_mirrored_gaussian(length: int, sigma: float) -> Array:
    """Return the matrix of Gaussian smoothing, cut off at three standard deviations."""
    return build_reflecting_blur(length, _compute_gaussian_taps(int(3 * sigma + 0.5), sigma), edge=0)


def smooth(field: Array, sigma: float) -> Array:
    """Smooth `[H, W]` by a Gaussian up to three standard deviations, mirroring at the border."""
    height, width = field.shape
    result: Array = _build_mirrored_gaussian(height, sigma) @ field @ _build_mirrored_gaussian(width, sigma).T
    return result


@lru_cache(maxsize=32)
def _build_repeating_gaussian(length: int, sigma: float) -> Array:
    taps = _compute_gaussian_taps(int(4 * sigma + 0.5), sigma)
    return _build_filter(length, taps, lambda index: np.clip(index, 0, length - 1))


def blur_gaussian(pixels: Array, sigma: float) -> Array:
    """Blur `[H, W, C]` by a Gaussian up to four standard deviations, repeating the border pixels."""
    height, width, channels = pixels.shape
    down = _build_repeating_gaussian(height, sigma) @ pixels.reshape(height, width * channels)
    blurred: Array = _build_repeating_gaussian(width, sigma) @ down.reshape(height, width, channels)
    return blurred


def sample_bilinear(pixels: Array, rows: Array, columns: Array, edge: int) -> Array:
    """Sample `[H, W, C]` at fractional positions, mirroring outside; return `[*positions.shape, C]`."""
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


def compute_zoom_grid(length: int, factor: float) -> tuple[int, float, float]:
    """Return the source positions of a side that is cropped to its middle and enlarged, ends kept on ends.

    Returns:
        Number of the `length` pixels that are enlarged; the position of the first pixel of the result among
        them; and the step from one pixel of the result to the next.
    """
    cropped = int(np.ceil(length / factor))
    enlarged = round(cropped * factor)
    step = (cropped - 1) / (enlarged - 1) if enlarged > 1 else 1.0
    return cropped, (enlarged - length) // 2 * step, step


def build_streak(radius: float, sigma: float, angle: float) -> tuple[Array, NDArray[np.int64]]:
    """Return weights and offsets (rows, columns) of ImageMagick's smear to one side; angle in radians."""
    steps = np.arange(2 * int(np.ceil(radius)) + 1)
    weights = np.exp(-0.5 * (steps / sigma) ** 2)
    offsets = np.ceil(np.outer(steps, (np.sin(angle), np.cos(angle))) - 0.5).astype(int)
    return weights / weights.sum(), offsets


def sum_shifts(pixels: Array, weights: Array, offsets: NDArray[np.int64]) -> Array:
    """Sum `weights[k]` times the image read at `offsets[k]` (rows, columns), repeating the border pixels."""
    height, width = pixels.shape[:2]
    reach = int(np.abs(offsets).max())
    padded = np.pad(pixels, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    total = np.zeros_like(pixels)
    for weight, (down, right) in zip(weights, offsets + reach, strict=True):
        total += weight * padded[down : down + height, right : right + width]
    return total
