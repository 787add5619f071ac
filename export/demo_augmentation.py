"""Changes of the CLIP demonstration's training images, each with the word that a caption may say of it.

There is no noise, no blur and no low contrast among them: a model trained with these would leave nothing for
test-time adaptation to repair.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from .demo_captions import INVERTED

INVERTED_SHARE = 0.1
SHAPE_SHARE = 0.15  # of images that are thin, and as many that are bold, small, large, tilted
ZOOMS = {"small": (0.6, 0.75), "large": (1.25, 1.45)}  # scale of the digit
USUAL_ZOOM = (0.9, 1.1)
TILT = (math.radians(20), math.radians(35))  # to either side
USUAL_TILT = math.radians(10)
LARGEST_SHIFT = 2 / 32
Adjectives = frozenset[str]


def draw_adjectives(rng: np.random.Generator) -> Adjectives:
    """Draw how an image shall be changed: words of `demo_captions`."""
    words = {INVERTED} if rng.random() < INVERTED_SHARE else set()
    for alternatives in (("thin", "bold"), ("small", "large"), ("tilted",)):
        place = int(rng.random() / SHAPE_SHARE)
        words.update(alternatives[place : place + 1])
    return frozenset(words)


def change_images(
    inputs: torch.Tensor, adjectives: Sequence[Adjectives], rng: np.random.Generator
) -> torch.Tensor:
    """Return images that are as the adjectives say, a little shifted, turned and scaled besides.

    Args:
        inputs: float32 `[N, 3, H, W]` in -1..1, bright ink on dark ground.
        adjectives: of each image.
        rng: source of the random numbers.
    """
    moved = _move(inputs, adjectives, rng)
    return torch.stack([_change_ink(image, words) for image, words in zip(moved, adjectives, strict=True)])


def _move(inputs: torch.Tensor, adjectives: Sequence[Adjectives], rng: np.random.Generator) -> torch.Tensor:
    """Shift, turn and scale each image."""
    zoom = np.array([_draw_zoom(words, rng) for words in adjectives])
    angle = np.array([_draw_angle(words, rng) for words in adjectives])
    shift = rng.uniform(-2 * LARGEST_SHIFT, 2 * LARGEST_SHIFT, (len(inputs), 2))  # the grid is 2 wide
    cosine, sine = np.cos(angle) / zoom, np.sin(angle) / zoom
    rows: NDArray[np.float32] = np.array(
        [[cosine, -sine, shift[:, 0]], [sine, cosine, shift[:, 1]]], dtype=np.float32
    )
    grid = functional.affine_grid(
        torch.from_numpy(rows).permute(2, 0, 1), list(inputs.shape), align_corners=False
    )
    return functional.grid_sample(inputs, grid, padding_mode="border", align_corners=False)


def _draw_zoom(words: Adjectives, rng: np.random.Generator) -> float:
    limits = next((ZOOMS[word] for word in ZOOMS if word in words), USUAL_ZOOM)
    return float(rng.uniform(*limits))


def _draw_angle(words: Adjectives, rng: np.random.Generator) -> float:
    if "tilted" not in words:
        return float(rng.uniform(-USUAL_TILT, USUAL_TILT))
    return float(rng.choice([-1, 1]) * rng.uniform(*TILT))


def _change_ink(image: torch.Tensor, words: Adjectives) -> torch.Tensor:
    """Make strokes one pixel thinner or thicker on both sides, and swap ink and ground."""
    if "thin" in words:
        image = -functional.max_pool2d(-image, 3, 1, 1)
    if "bold" in words:
        image = cast(torch.Tensor, functional.max_pool2d(image, 3, 1, 1))
    return -image if INVERTED in words else image
