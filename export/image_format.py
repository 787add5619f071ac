"""Size, normalisation and preparation of the images that a model reads."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from timm.data import resolve_model_data_config

from ..engine.bundle.preprocessing import CROP_MODES, INTERPOLATIONS, Preprocessing
from ..engine.errors import ExportError


@dataclass(frozen=True)
class ImageFormat:
    """Size and normalisation of the images that a model reads.

    Attributes:
        size: height and width in pixels.
        mean: per channel, of images scaled to 0..1.
        std: per channel, of images scaled to 0..1.
        pixels: whether the graph has a tunable that is added to the images.
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pixels: bool = False


@dataclass(frozen=True)
class ImageOptions:
    """Preparation of images where it differs from timm's configuration of the model; None is timm's.

    Attributes:
        mean: subtracted from images scaled to 0..1; one number, or one per channel.
        std: divided by after that, likewise.
        crop_pct: part of the resized image's side that the crop keeps, above 0 and at most 1.
        crop_mode: one of `CROP_MODES`.
        interpolation: one of `INTERPOLATIONS`.

    Raises:
        ExportError: a value cannot be used.
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    crop_pct: float | None = None
    crop_mode: str | None = None
    interpolation: str | None = None

    def __post_init__(self) -> None:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and (
                len(values) not in (1, 3)
                or not all(math.isfinite(value) for value in values)
                or (name == "std" and min(values) <= 0)
            ):
                above = " above 0" if name == "std" else ""
                raise ExportError(
                    f"expected one or three finite numbers{above} for --{name}, of images scaled to 0..1, "
                    f"found {', '.join(f'{value:g}' for value in values)}"
                )
        if max(self.mean or (0,)) > 1 or max(self.std or (0,)) > 1:
            raise ExportError(
                "--mean and --std are for images scaled to 0..1, and a number above 1 was given; divide "
                "values for 0..255 by 255"
            )
        if self.crop_pct is not None and not 0 < self.crop_pct <= 1:
            raise ExportError(
                f"expected a part of the image above 0 and at most 1 for --crop-pct, found {self.crop_pct:g}"
            )

    @property
    def given(self) -> dict[str, Any]:
        """The values that are set, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


def resolve_images(model: Any, options: ImageOptions) -> dict[str, Any]:
    """Return timm's configuration of a model's images, with the options that are set, as timm resolves it."""
    config: dict[str, Any] = resolve_model_data_config(model, args=options.given)
    return config


def read_image_format(config: dict[str, Any], side: int | None, *, pixels: bool = False) -> ImageFormat:
    """Return size and normalisation of a configuration.

    Args:
        config: of `resolve_images`.
        side: side of the images in pixels instead of the configuration's.
        pixels: whether the graph shall have a tunable that is added to the images.
    """
    _, height, width = config["input_size"]
    size = (int(height), int(width)) if side is None else (side, side)
    return ImageFormat(size, tuple(config["mean"]), tuple(config["std"]), pixels)


def read_preprocessing(config: dict[str, Any], size: tuple[int, int]) -> Preprocessing:
    """Return how files become images of a size.

    Raises:
        ExportError: the images are not square, or are prepared in a way that fozo does not know.
    """
    mode, interpolation = config["crop_mode"], config["interpolation"]
    if size[0] != size[1]:
        raise ExportError(
            f"this model reads images of {size[0]} × {size[1]}; fozo prepares square ones only: give "
            "--image-size"
        )
    if mode not in CROP_MODES or interpolation not in INTERPOLATIONS:
        raise ExportError(
            f"images of this model are prepared by crop mode {mode!r} and interpolation "
            f"{interpolation!r}; fozo knows {', '.join(CROP_MODES)} and {', '.join(INTERPOLATIONS)}: choose "
            "with --crop-mode and --interpolation"
        )
    return Preprocessing(size, math.floor(min(size) / config["crop_pct"]), interpolation, mode)
