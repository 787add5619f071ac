"""Size and normalisation of the images that a model reads."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ImageFormat:
    """Size and normalisation of the images that a model reads.

    Attributes:
        size: height and width in pixels.
        mean: per channel, of images scaled to 0..1.
        std: per channel, of images scaled to 0..1.
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
