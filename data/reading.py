"""Choices in reading image files, as a value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

MAX_PIXELS = 64_000_000
Orientation = Literal["ignore", "apply"]
ORIENTATIONS: tuple[Orientation, ...] = get_args(Orientation)


@dataclass(frozen=True)
class Reading:
    """Choices in reading image files.

    Attributes:
        max_pixels: largest width times height to decode.
        exif_orientation: `apply` turns images as their EXIF data say; `ignore` does not, as torchvision's
            loader does not.
    """

    max_pixels: int = MAX_PIXELS
    exif_orientation: Orientation = "ignore"
