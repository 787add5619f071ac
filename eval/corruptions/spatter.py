"""Spatter: drops of water or mud on the lens."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from .pixels import Array, Pixels, blur_gaussian, compute_reference_shape, fit, to_uint8

# Mean and standard deviation of the liquid, its smoothness, and the threshold; the last is the opacity of
# water, or the softness of the rim of mud.
SPATTER = (
    (0.65, 0.3, 4, 0.69, 0.6),
    (0.65, 0.3, 3, 0.68, 0.6),
    (0.65, 0.3, 2, 0.68, 0.5),
    (0.65, 0.3, 1, 0.65, 1.5),
    (0.67, 0.4, 1, 0.65, 1.5),
)
FIRST_MUD = 4
WATER_COLOUR = (175, 238, 238)
MUD_COLOUR = (63, 42, 20)
MUD_LEAST = 0.8
EDGE_WEAK_STRONG = (50, 150)
FURTHEST = 20.0
# Steps of a path between pixels: rows down, columns to either side, and length. A step along the row has
# length 1.
STEPS = ((1, 0, 1.0), (1, 1, 1.4), (1, 2, 2.1969), (2, 1, 2.1969))
EMBOSS = ((-2, -1, 0), (-1, 1, 1), (0, 1, 2))

Scalar = TypeVar("Scalar", bound=np.generic)


def spatter(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Add water up to severity 3 and mud from 4 on; made at 224 pixels and resized to the image."""
    mean, std, smoothness, threshold, last = SPATTER[severity - 1]
    liquid = blur_gaussian(rng.normal(mean, std, (*compute_reference_shape(image), 1)), smoothness)[..., 0]
    pixels = image / 255
    if severity >= FIRST_MUD:
        mud = blur_gaussian((liquid > threshold)[..., None].astype(np.float64), last)[..., 0]
        layer = fit(np.where(mud < MUD_LEAST, 0, mud), image)[..., None]
        return to_uint8(pixels * (1 - layer) + np.divide(MUD_COLOUR, 255) * layer)
    drops = to_uint8(np.where(liquid < threshold, 0, liquid))
    layer = fit(last * emboss_water(drops), image)[..., None]
    return to_uint8(pixels + np.divide(WATER_COLOUR, 255) * layer)


def emboss_water(drops: Pixels) -> Array:
    """Return the light in drops of water `[H, W]`, at most 1: embossed distances from their rims."""
    distance = compute_distances(detect_edges(drops))
    relief = (_correlate_3x3(distance, np.full((3, 3), 1 / 9)) + 1e-6).astype(np.uint8)
    relief = np.clip(_correlate_3x3(equalize(relief), np.array(EMBOSS)), 0, 255)
    light = drops * np.rint(_correlate_3x3(relief, np.full((3, 3), 1 / 9)))
    return np.asarray(light / max(light.max(), 1), np.float64)


def detect_edges(layer: Pixels) -> NDArray[np.bool_]:
    """Return Canny's edges of `[H, W]`: ridges of the Sobel gradient, strong or weak beside an edge."""
    padded = np.pad(layer.astype(np.int64), 1, mode="edge")
    sides = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    ends = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    across, down = sides[:, 2:] - sides[:, :-2], ends[2:] - ends[:-2]
    strength = np.abs(across) + np.abs(down)
    weak, strong = EDGE_WEAK_STRONG

    def ridge(row: int, column: int, tie: int) -> NDArray[np.bool_]:
        """Return values above both neighbours; with a tie of 1, they may equal the second."""
        higher: NDArray[np.bool_] = strength > _shift(strength, -row, -column)
        return higher & (strength + tie > _shift(strength, row, column))

    slope = np.tan(np.pi / 8)
    level, steep = np.abs(down) < slope * np.abs(across), np.abs(across) < slope * np.abs(down)
    slanted = np.where((across < 0) == (down < 0), ridge(1, 1, 0), ridge(1, -1, 0))
    ridges = np.where(level, ridge(0, 1, 1), np.where(steep, ridge(1, 0, 1), slanted)) & (strength > weak)
    edge_pixels, count = ridges & (strength > strong), -1
    while count != (count := int(edge_pixels.sum())):
        edge_pixels = edge_pixels | _shift(edge_pixels, 0, -1) | _shift(edge_pixels, 0, 1)
        edge_pixels = ridges & (edge_pixels | _shift(edge_pixels, -1, 0) | _shift(edge_pixels, 1, 0))
    return edge_pixels


def compute_distances(marked: NDArray[np.bool_]) -> Array:
    """Return the length of the shortest path from every pixel to a marked one, up to `FURTHEST`.

    Paths consist of `STEPS`, as in the published code, which approximates the Euclidean distance so.
    """
    away = np.where(marked, 0.0, FURTHEST)
    for rows in (away, away[::-1]):
        for index, row in enumerate(rows):
            for down, right, length in STEPS:
                if index >= down:
                    before = rows[index - down]
                    np.minimum(row[right:], before[: len(row) - right] + length, out=row[right:])
                    np.minimum(row[: len(row) - right], before[right:] + length, out=row[: len(row) - right])
            for way in (row, row[::-1]):
                position = np.arange(len(way))
                way[:] = np.minimum.accumulate(way - position) + position
    return away


def equalize(grey: Pixels) -> Pixels:
    """Spread the grey levels so that their cumulative counts grow evenly from 0 to 255."""
    counts = np.bincount(grey.ravel(), minlength=256)
    lowest = counts[grey.min()]
    if lowest == grey.size:
        return grey
    levels = (np.cumsum(counts) - lowest) * (255 / (grey.size - lowest))
    spread: Pixels = np.rint(np.clip(levels, 0, 255)).astype(np.uint8)[grey]
    return spread


def _shift(values: NDArray[Scalar], row: int, column: int) -> NDArray[Scalar]:
    """Return the values `row` below and `column` to the right; 0 outside."""
    height, width = values.shape
    padded = np.pad(values, 1)
    return padded[1 + row : 1 + row + height, 1 + column : 1 + column + width]


def _correlate_3x3(values: NDArray[np.generic], weights: NDArray[np.generic]) -> Array:
    """Correlate `[H, W]` with 3x3 weights, mirroring about the border pixels."""
    height, width = values.shape
    padded = np.pad(values.astype(np.float64), 1, mode="reflect")
    total = np.zeros((height, width))
    for (row, column), weight in np.ndenumerate(weights):
        total += float(weight) * padded[row : row + height, column : column + width]
    return total
