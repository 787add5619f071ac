"""Choices in reading image files, as a value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from ..engine.errors import InputError

MAX_PIXELS = 64_000_000
Orientation = Literal["ignore", "apply"]
ORIENTATIONS: tuple[Orientation, ...] = get_args(Orientation)
LargeJpegs = Literal["refuse", "reduce"]
LARGE_JPEGS: tuple[LargeJpegs, ...] = get_args(LargeJpegs)


@dataclass(frozen=True)
class Reading:
    """Choices in reading image files.

    Attributes:
        max_pixels: largest width times height to decode.
        exif_orientation: `apply` turns images as their EXIF data say; `ignore` does not, as torchvision's
            loader does not.
        large_jpegs: `reduce` decodes JPEG files with more pixels at a half, a quarter or an eighth of their
            size, which takes less memory and time and gives slightly other pixels; `refuse` does not.
    """

    max_pixels: int = MAX_PIXELS
    exif_orientation: Orientation = "ignore"
    large_jpegs: LargeJpegs = "refuse"

    @property
    def reduced_above(self) -> int | None:
        """Number of pixels above which JPEG files are reduced; None if none are."""
        return self.max_pixels if self.large_jpegs == "reduce" else None


def suggest_skipping(error: object) -> InputError:
    """Return the error about an image that cannot be read, with the option that goes on without it."""
    return InputError(f"{error}; --on-error skip goes on without such images")
