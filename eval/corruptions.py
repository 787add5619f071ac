"""Image corruptions of ImageNet-C, from its published parameters, with NumPy and Pillow alone.

Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations",
ICLR 2019. The parameters are those for 224x224 pixels. At another size every length in pixels (the radius of
a blur, the reach of a distortion) is multiplied by min(H, W) / 224, so that the picture looks the same;
what is not a length (noise, contrast, JPEG quality, and pixelate's ratio of the image's own grid) stays.

Results are rounded down to 8 bits as in the paper's code. They are not the benchmark's files: the random
numbers differ, and the published images went through JPEG once more. Report them as "ImageNet-C style".
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..engine.errors import InputError

Pixels = NDArray[np.uint8]
Array = NDArray[np.float64]

SEVERITIES = (1, 2, 3, 4, 5)
REFERENCE_SIZE = 224

GAUSSIAN_STD = (0.08, 0.12, 0.18, 0.26, 0.38)
SHOT_PHOTONS = (60, 25, 12, 5, 3)
IMPULSE_SHARE = (0.03, 0.06, 0.09, 0.17, 0.27)
DEFOCUS_RADIUS_ALIAS = ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))
MOTION_RADIUS_SIGMA = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))
MOTION_LARGEST_ANGLE = 45.0
BRIGHTNESS_SHIFT = (0.1, 0.2, 0.3, 0.4, 0.5)
CONTRAST_FACTOR = (0.4, 0.3, 0.2, 0.1, 0.05)
# Displacement, its smoothness, and the affine jitter; the paper's code derives them from 244, not 224.
ELASTIC = (
    (244 * 2.0, 244 * 0.7, 244 * 0.1),
    (244 * 2.0, 244 * 0.08, 244 * 0.2),
    (244 * 0.05, 244 * 0.01, 244 * 0.02),
    (244 * 0.07, 244 * 0.01, 244 * 0.02),
    (244 * 0.12, 244 * 0.01, 244 * 0.02),
)
PIXELATE_RATIO = (0.6, 0.5, 0.4, 0.3, 0.25)
JPEG_QUALITY = (25, 18, 15, 10, 7)


def corrupt(image: Pixels, name: str, severity: int, *, image_id: str, seed: int) -> Pixels:
    """Corrupts one image; the same arguments give the same result in any order, process or thread.

    Args:
        image: uint8 RGB of shape [H, W, 3]; not changed.
        name: a key of `CORRUPTIONS`.
        severity: 1 (mild) to 5 (strong).
        image_id: what tells this image from the others, such as its relative path.
        seed: of the whole corrupted data set.

    Returns:
        A new uint8 array of shape [H, W, 3].

    Raises:
        InputError: the name or the severity does not exist, or the image is not uint8 [H, W, 3].
    """
    if name not in CORRUPTIONS:
        raise InputError(
            f"expected a corruption out of {', '.join(CORRUPTIONS)}, found {name!r}; pick one of these"
        )
    if severity not in SEVERITIES:
        raise InputError(f"expected a severity out of 1, 2, 3, 4, 5, found {severity!r}; pick one of these")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise InputError(
            f"expected a uint8 image of shape [H, W, 3], found {image.dtype} of shape {image.shape} "
            f"for {image_id!r}; convert it to 8-bit RGB first"
        )
    return CORRUPTIONS[name](image, severity, generator(name, severity, image_id, seed))


def generator(name: str, severity: int, image_id: str, seed: int) -> np.random.Generator:
    """The random numbers that belong to one corrupted image: PCG64, seeded by a hash of the arguments."""
    key = json.dumps([int(seed), name, int(severity), image_id]).encode()
    return np.random.Generator(np.random.PCG64(int.from_bytes(hashlib.sha256(key).digest(), "little")))


def gaussian_noise(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Adds noise of a normal distribution, independent for every value."""
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    return _to_uint8(image / 255 + GAUSSIAN_STD[severity - 1] * noise)


def shot_noise(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Replaces every value by a Poisson count of the photons that it stands for."""
    photons = SHOT_PHOTONS[severity - 1]
    return _to_uint8(rng.poisson(image / 255 * photons) / photons)


def impulse_noise(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Sets a share of the values, each channel on its own, to black or white with equal chance."""
    share = IMPULSE_SHARE[severity - 1]
    draw = rng.random(image.shape)
    return np.where(draw < share / 2, np.uint8(0), np.where(draw < share, np.uint8(255), image))


def defocus_blur(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Convolves with the disk of a lens out of focus."""
    radius, alias = DEFOCUS_RADIUS_ALIAS[severity - 1]
    return _to_uint8(convolve(image / 255, disk(radius * _scale(image), alias)))


def motion_blur(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Smears along a line within 45 degrees of the horizontal, to one side, as ImageMagick does."""
    radius, sigma = (length * _scale(image) for length in MOTION_RADIUS_SIGMA[severity - 1])
    angle = np.deg2rad(rng.uniform(-MOTION_LARGEST_ANGLE, MOTION_LARGEST_ANGLE))
    steps = np.arange(2 * int(np.ceil(radius)) + 1)
    weights = np.exp(-0.5 * (steps / sigma) ** 2)
    offsets = np.ceil(np.outer(steps, (np.sin(angle), np.cos(angle))) - 0.5).astype(int)
    return _to_uint8(_weighted_shifts(image / 255, weights / weights.sum(), offsets))


def brightness(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Adds to the value channel of HSV; hue and saturation stay, so the three channels scale together."""
    value = image.max(axis=2, keepdims=True) / 255
    raised = np.minimum(value + BRIGHTNESS_SHIFT[severity - 1], 1.0)
    relative = np.divide(image / 255, value, out=np.ones(image.shape), where=value > 0)  # black has no hue
    return _to_uint8(relative * raised)


def contrast(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Draws every value towards its channel's mean."""
    pixels = image / 255
    mean = pixels.mean(axis=(0, 1), keepdims=True)
    return _to_uint8((pixels - mean) * CONTRAST_FACTOR[severity - 1] + mean)


def elastic_transform(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """A random affine map followed by a smooth random displacement of every pixel."""
    height, width = image.shape[:2]
    reach, sigma, jitter = (length * _scale(image) for length in ELASTIC[severity - 1])
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    matrix = _random_affine(height, width, jitter, rng)
    moved = matrix @ np.stack([columns.ravel(), rows.ravel(), np.ones(rows.size)])
    warped = _bilinear(image / 255, moved[1].reshape(rows.shape), moved[0].reshape(rows.shape), edge=1)
    right, down = (_smooth(rng.uniform(-1, 1, (height, width)), sigma) * reach for _ in range(2))
    return _to_uint8(_bilinear(warped, rows + down, columns + right, edge=0))


def pixelate(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Averages down to a share of the size, and enlarges again in blocks."""
    height, width = image.shape[:2]
    ratio = PIXELATE_RATIO[severity - 1]
    small = (max(int(width * ratio), 1), max(int(height * ratio), 1))
    box = Image.Resampling.BOX
    return np.array(Image.fromarray(image).resize(small, box).resize((width, height), box))


def jpeg_compression(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Compresses as JPEG at a low quality."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=JPEG_QUALITY[severity - 1])
    return np.array(Image.open(buffer, formats=["JPEG"]))


CORRUPTIONS: Mapping[str, Callable[[Pixels, int, np.random.Generator], Pixels]] = MappingProxyType(
    {
        "gaussian_noise": gaussian_noise,
        "shot_noise": shot_noise,
        "impulse_noise": impulse_noise,
        "defocus_blur": defocus_blur,
        "motion_blur": motion_blur,
        "brightness": brightness,
        "contrast": contrast,
        "elastic_transform": elastic_transform,
        "pixelate": pixelate,
        "jpeg_compression": jpeg_compression,
    }
)


@lru_cache(maxsize=64)
def disk(radius: float, alias: float) -> Array:
    """The kernel of a lens out of focus: a disk whose rim is softened by a small Gaussian.

    As in the paper's code, the Gaussian mirrors at the border of the kernel's array, so that where the disk
    touches it (a radius of 8 or more) the kernel sums to 1.01 rather than 1.

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
    blur = _reflecting_blur(len(row), taps / taps.sum(), edge=1)
    kernel: Array = blur @ (inside / inside.sum()) @ blur.T
    kernel.setflags(write=False)
    return kernel


def convolve(pixels: Array, kernel: Array) -> Array:
    """Convolves each channel of [H, W, C] with a symmetric odd kernel, mirroring about the border pixels."""
    height, width = pixels.shape[:2]
    reach = len(kernel) // 2
    padded = np.pad(pixels, ((reach, reach), (reach, reach), (0, 0)), mode="reflect").transpose(2, 0, 1)
    size = (_fast_length(height + 2 * reach), _fast_length(width + 2 * reach))
    product = np.fft.rfft2(padded, size) * np.fft.rfft2(kernel, size)
    whole: Array = np.fft.irfft2(product, size)
    inner: Array = whole[:, 2 * reach : 2 * reach + height, 2 * reach : 2 * reach + width]
    return np.moveaxis(inner, 0, 2)


def _to_uint8(pixels: NDArray[np.floating]) -> Pixels:
    """0..1 to 0..255, rounded down; the small term keeps 254.9999999 from becoming 254."""
    scaled: NDArray[np.floating] = np.clip(pixels, 0, 1) * 255 + 1e-6
    return scaled.astype(np.uint8)


def _scale(image: Pixels) -> float:
    shorter: int = min(image.shape[:2])
    return shorter / REFERENCE_SIZE


def _fast_length(length: int) -> int:
    """The next length whose only prime factors are 2, 3 and 5."""
    while True:
        rest = length
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return length
        length += 1


def _mirror(index: NDArray[np.int64], length: int, edge: int) -> NDArray[np.int64]:
    """Folds indices back into 0..length-1; `edge` 1 does not repeat the border pixel, 0 does."""
    if length == 1:
        return np.zeros_like(index)
    period = 2 * (length - edge)
    folded = index % period
    return np.minimum(folded, period - 1 + edge - folded)


def _reflecting_blur(length: int, taps: Array, edge: int) -> Array:
    """The matrix [length, length] that filters a signal with symmetric `taps`, mirroring at its ends."""
    reach = len(taps) // 2
    matrix = np.zeros((length, length))
    rows = np.arange(length)
    for offset, tap in zip(range(-reach, reach + 1), taps, strict=True):
        np.add.at(matrix, (rows, _mirror(rows + offset, length, edge)), tap)
    return matrix


@lru_cache(maxsize=16)
def _gaussian_matrix(length: int, sigma: float) -> Array:
    """Gaussian smoothing of a signal, cut off at three standard deviations."""
    reach = int(3 * sigma + 0.5)
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return _reflecting_blur(length, taps / taps.sum(), edge=0)


def _smooth(field: Array, sigma: float) -> Array:
    height, width = field.shape
    smooth: Array = _gaussian_matrix(height, sigma) @ field @ _gaussian_matrix(width, sigma).T
    return smooth


def _random_affine(height: int, width: int, jitter: float, rng: np.random.Generator) -> Array:
    """From the result's (x, y, 1) to the source's (x, y): three points around the middle, jittered."""
    reach = max(min(height, width) // 3, 1)
    signs = np.array([[1, 1], [1, -1], [-1, -1]])
    before = np.array([width // 2, height // 2]) + reach * signs
    after = before + rng.uniform(-jitter, jitter, (3, 2))
    affine: Array = np.linalg.solve(np.column_stack([after, np.ones(3)]), before).T
    return affine


def _bilinear(pixels: Array, rows: Array, columns: Array, edge: int) -> Array:
    """Samples [H, W, C] at fractional places, mirroring outside; the result has the places' shape."""
    height, width = pixels.shape[:2]
    top, left = np.floor(rows).astype(np.int64), np.floor(columns).astype(np.int64)
    down, right = (rows - top)[..., None], (columns - left)[..., None]
    row = [_mirror(top + step, height, edge) * width for step in (0, 1)]
    column = [_mirror(left + step, width, edge) for step in (0, 1)]
    flat = pixels.reshape(height * width, -1)
    upper = flat[row[0] + column[0]] * (1 - right) + flat[row[0] + column[1]] * right
    lower = flat[row[1] + column[0]] * (1 - right) + flat[row[1] + column[1]] * right
    sampled: Array = upper * (1 - down) + lower * down
    return sampled


def _weighted_shifts(pixels: Array, weights: Array, offsets: NDArray[np.int64]) -> Array:
    """Sums `weights[k]` times the image read at `offsets[k]` (rows, columns), repeating the border pixels."""
    height, width = pixels.shape[:2]
    reach = int(np.abs(offsets).max())
    padded = np.pad(pixels, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    total = np.zeros_like(pixels)
    for weight, (down, right) in zip(weights, offsets + reach, strict=True):
        total += weight * padded[down : down + height, right : right + width]
    return total
