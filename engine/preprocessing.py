"""How a file becomes the image that a bundle's graph expects: a description, stored with the model."""

from __future__ import annotations

from dataclasses import dataclass

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")
CROP_MODES = ("center", "squash")


@dataclass(frozen=True)
class Preprocessing:
    """Resize, then crop. Scaling, mean and std are not here: they are inside the graph.

    Attributes:
        size: height and width of the image that the graph reads, in pixels.
        resize: length after resizing, in pixels, of the shorter side (`center`) or of both (`squash`);
            the crop then takes the middle.
        interpolation: one of `INTERPOLATIONS`, Pillow's resampling filter of that name.
        crop_mode: `center` or `squash`.
    """

    size: tuple[int, int]
    resize: int
    interpolation: str = "bicubic"
    crop_mode: str = "center"
