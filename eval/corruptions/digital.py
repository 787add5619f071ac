"""Changes of colour, shape and encoding."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from .pixels import Array, Pixels, compute_scale, sample_bilinear, smooth, to_uint8

BRIGHTNESS_SHIFT = (0.1, 0.2, 0.3, 0.4, 0.5)
CONTRAST_FACTOR = (0.4, 0.3, 0.2, 0.1, 0.05)
# Displacement, its smoothness and the affine jitter, in pixels. The paper's code says 244, not 224.
ELASTIC = (
    (244 * 2.0, 244 * 0.7, 244 * 0.1),
    (244 * 2.0, 244 * 0.08, 244 * 0.2),
    (244 * 0.05, 244 * 0.01, 244 * 0.02),
    (244 * 0.07, 244 * 0.01, 244 * 0.02),
    (244 * 0.12, 244 * 0.01, 244 * 0.02),
)
PIXELATE_RATIO = (0.6, 0.5, 0.4, 0.3, 0.25)
JPEG_QUALITY = (25, 18, 15, 10, 7)
SATURATE_FACTOR_SHIFT = ((0.3, 0.0), (0.1, 0.0), (2.0, 0.0), (5.0, 0.1), (20.0, 0.2))


def brightness(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Add to the value channel of HSV; hue and saturation stay, so the three channels scale together."""
    value = image.max(axis=2, keepdims=True) / 255
    raised = np.minimum(value + BRIGHTNESS_SHIFT[severity - 1], 1.0)
    relative = np.divide(image / 255, value, out=np.ones(image.shape), where=value > 0)  # black has no hue
    return to_uint8(relative * raised)


def contrast(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Draw every value towards the mean of its channel."""
    pixels = image / 255
    mean = pixels.mean(axis=(0, 1), keepdims=True)
    return to_uint8((pixels - mean) * CONTRAST_FACTOR[severity - 1] + mean)


def elastic_transform(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Apply a random affine map, then a smooth random displacement of every pixel."""
    height, width = image.shape[:2]
    reach, sigma, jitter = (length * compute_scale(image) for length in ELASTIC[severity - 1])
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    matrix = _draw_affine(height, width, jitter, rng)
    source = matrix @ np.stack([columns.ravel(), rows.ravel(), np.ones(rows.size)])
    warped = sample_bilinear(
        image / 255, source[1].reshape(rows.shape), source[0].reshape(rows.shape), edge=1
    )
    right, down = (smooth(rng.uniform(-1, 1, (height, width)), sigma) * reach for _ in range(2))
    return to_uint8(sample_bilinear(warped, rows + down, columns + right, edge=0))


def pixelate(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Average down to a fraction of the size, and enlarge again in blocks."""
    height, width = image.shape[:2]
    ratio = PIXELATE_RATIO[severity - 1]
    small = (max(int(width * ratio), 1), max(int(height * ratio), 1))
    box = Image.Resampling.BOX
    return np.array(Image.fromarray(image).resize(small, box).resize((width, height), box))


def jpeg_compression(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Compress as JPEG at a low quality."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=JPEG_QUALITY[severity - 1])
    return np.array(Image.open(buffer, formats=["JPEG"]))


def saturate(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Scale and shift the saturation of HSV; grey counts as a red of saturation 0, and is shifted too."""
    factor, shift = SATURATE_FACTOR_SHIFT[severity - 1]
    value = image.max(axis=2, keepdims=True).astype(np.float32)
    below = value - image  # of each channel, 0 for the largest
    reach = below.max(axis=2, keepdims=True)
    share = np.divide(below, reach, out=np.zeros_like(below), where=reach > 0)
    share[..., 1:] = np.where(reach > 0, share[..., 1:], 1)  # red
    saturation = np.divide(reach, value, out=np.zeros_like(value), where=value > 0)
    return to_uint8(value / 255 * (1 - share * np.clip(saturation * factor + shift, 0, 1)))


def _draw_affine(height: int, width: int, jitter: float, rng: np.random.Generator) -> Array:
    """Return the matrix from (x, y, 1) of the result to (x, y) of the source, from three jittered points."""
    reach = max(min(height, width) // 3, 1)
    signs = np.array([[1, 1], [1, -1], [-1, -1]])
    before = np.array([width // 2, height // 2]) + reach * signs
    after = before + rng.uniform(-jitter, jitter, (3, 2))
    affine: Array = np.linalg.solve(np.column_stack([after, np.ones(3)]), before).T
    return affine
