"""Preprocessing: the recipe from an image file to the input of a graph, stored with the model."""

from __future__ import annotations

from dataclasses import dataclass, replace

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
        frame: width in pixels of a black frame, inside of which there is the image as it would be prepared
            for a model of that smaller size; 0: none.

    Raises:
        ValueError: a length is not positive, or a name is unknown.
    """

    size: tuple[int, int]
    resize: int
    interpolation: str = "bicubic"
    crop_mode: str = "center"
    frame: int = 0

    def __post_init__(self) -> None:
        lengths = (*self.size, self.resize)
        if len(self.size) != 2 or any(type(length) is not int or length < 1 for length in lengths):
            raise ValueError(
                f"size and resize must be positive integers, found {self.size} and {self.resize!r}"
            )
        if type(self.frame) is not int or not 0 <= 2 * self.frame < min(self.size):
            raise ValueError(f"frame must leave a part of {self.size}, found {self.frame!r}")
        if self.interpolation not in INTERPOLATIONS or self.crop_mode not in CROP_MODES:
            raise ValueError(
                f"interpolation must be one of {', '.join(INTERPOLATIONS)} and crop mode one of "
                f"{', '.join(CROP_MODES)}, found {self.interpolation!r} and {self.crop_mode!r}"
            )

    @property
    def inside(self) -> Preprocessing:
        """Preparation of what is inside the frame, in proportion."""
        size = (self.size[0] - 2 * self.frame, self.size[1] - 2 * self.frame)
        resize = max(1, round(self.resize * min(size) / min(self.size)))
        return replace(self, size=size, resize=resize, frame=0)
