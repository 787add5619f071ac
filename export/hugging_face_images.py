"""Preparation of images as `preprocessor_config.json` of Hugging Face's transformers says it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ..engine.errors import ExportError
from ..engine.files import hash_file
from .hugging_face_file import read_settings
from .image_format import ImageOptions

_FILE = "preprocessor_config.json"
_RESAMPLING = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # by Pillow's numbers
_KIND = re.compile(r"(ViT|DeiT|Bit|CLIP)(?:FeatureExtractor|ImageProcessor(?:Fast|Pil)?)")
_STEPS = {"do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb"}


@dataclass(frozen=True)
class FilePreparation:
    """Preparation of images that a file says.

    Attributes:
        file: its name.
        sha256: its hash.
        side: side of the square images that the model reads, in pixels.
        options: mean, std, crop and interpolation, all set.
    """

    file: str
    sha256: str
    side: int
    options: ImageOptions

    def combine(self, given: ImageOptions) -> ImageOptions:
        """Return the user's options, and those of the file where the user gave none."""
        return replace(self.options, **given.given)

    def check_side(self, size: tuple[int, int]) -> None:
        """Refuse a model that reads images of another height and width, in pixels.

        Raises:
            ExportError: it does.
        """
        if size != (self.side, self.side):
            raise ExportError(
                f"{self.file} beside the weights prepares images of {self.side} × {self.side} pixels, and "
                f"this model reads {size[0]} × {size[1]}; give --image-size as the weights were trained"
            )

    def describe(self, given: ImageOptions) -> str:
        """Return in a sentence what is taken from the file, beside the options that the user gave."""
        options = ", ".join(f"--{name.replace('_', '-')}" for name in given.given)
        return (
            f"mean, std, crop and interpolation are those of {self.file}, which lies beside the weights and "
            f"prepares images of {self.side} × {self.side} pixels"
            f"{f'; where it differs, {options} was taken' if options else ''}"
        )


def read_preparation(weights: Path | None, given: ImageOptions) -> FilePreparation | None:
    """Read how images are prepared from the file beside weights.

    Args:
        weights: the weights file; None has no file beside it.
        given: options of the user; if all are set, the file is not read.

    Returns:
        The preparation; None if there is no such file, or it is not needed.

    Raises:
        ExportError: the file is damaged, or says something that fozo does not do.
    """
    if weights is None or len(given.given) == len(fields(given)):
        return None
    path = weights.with_name(_FILE)
    settings = read_settings(path)
    if settings is None:
        return None
    try:
        side, options = _interpret(settings)
    except (ValueError, OverflowError, ExportError) as error:
        raise ExportError(
            f"{path}, which lies beside the weights: {error}; mend it, move it away, or give --mean, --std, "
            "--crop-pct, --crop-mode and --interpolation, which all together replace it"
        ) from error
    return FilePreparation(path.name, hash_file(path), side, options)


def _interpret(settings: Mapping[str, Any]) -> tuple[int, ImageOptions]:
    """Return the side of the images and their preparation.

    Raises:
        ValueError: something is missing, unknown, or cannot be done.
    """
    kind = _read_kind(settings)
    _check_steps(settings)
    square, resized = _read_resize(settings.get("size"), kind)
    side = resized
    if settings.get("do_center_crop", kind != "ViT"):
        side = _read_square("crop_size", settings.get("crop_size"))
    elif not square:
        raise ValueError(
            "size is that of the shorter edge, and without do_center_crop images keep their form"
        )
    if side > resized:
        raise ValueError(f"crop_size {side} is above size {resized}, so images would get margins")
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    if settings.get("do_normalize", True):
        mean, std = (_read_channels(name, settings.get(name)) for name in ("image_mean", "image_std"))
    return side, ImageOptions(
        mean,
        std,
        _divide(side, resized),
        "squash" if square else "center",
        _read_filter(settings.get("resample")),
    )


def _read_kind(settings: Mapping[str, Any]) -> str:
    name = settings.get("image_processor_type", settings.get("feature_extractor_type"))
    match = _KIND.fullmatch(name) if isinstance(name, str) else None
    if match is None:
        raise ValueError(
            "expected image_processor_type ViTImageProcessor, DeiTImageProcessor, BitImageProcessor or "
            f"CLIPImageProcessor, whose steps fozo knows, found {name!r}"
        )
    return match[1]


def _check_steps(settings: Mapping[str, Any]) -> None:
    steps = {name: value for name, value in settings.items() if name.startswith("do_") and value is not None}
    for name, value in steps.items():
        if type(value) is not bool:
            raise ValueError(f"expected true or false for {name}, found {value!r}")
        if value and name not in _STEPS:
            raise ValueError(f"fozo does not do the step {name}")
    for name in ("do_resize", "do_rescale"):
        if not steps.get(name, True):
            raise ValueError(f"{name} is false, and fozo resizes images and scales them to 0..1")
    factor = settings.get("rescale_factor", 1 / 255)
    if type(factor) is not float or not math.isclose(factor, 1 / 255, rel_tol=1e-4):
        raise ValueError(f"expected rescale_factor 1/255, found {factor!r}")


def _read_resize(size: Any, kind: str) -> tuple[bool, int]:
    """Return whether both sides are resized, or the shorter one, and to which length in pixels."""
    if isinstance(size, dict) and size.keys() == {"shortest_edge"}:
        return False, _read_length("size", size["shortest_edge"])
    if not isinstance(size, dict):  # a number, which processors take in two ways
        return kind in ("ViT", "DeiT"), _read_length("size", size)
    return True, _read_square("size", size)


def _read_square(name: str, size: Any) -> int:
    if not isinstance(size, dict):
        return _read_length(name, size)
    if size.keys() != {"height", "width"} or size["height"] != size["width"]:
        raise ValueError(f"expected equal height and width for {name}, found {size!r}")
    return _read_length(name, size["height"])


def _read_length(name: str, value: Any) -> int:
    if type(value) is not int or not 0 < value < 1 << 16:
        raise ValueError(f"expected a number of pixels for {name}, found {value!r}")
    return value


def _read_channels(name: str, values: Any) -> tuple[float, ...]:
    if not isinstance(values, list) or not all(type(value) in (int, float) for value in values):
        raise ValueError(f"expected numbers for {name}, found {values!r}")
    return tuple(map(float, values))


def _read_filter(number: Any) -> str:
    if type(number) is not int or not 0 <= number < len(_RESAMPLING):
        raise ValueError(
            f"expected a filter of Pillow, 0 to {len(_RESAMPLING) - 1}, for resample, found {number!r}"
        )
    return _RESAMPLING[number]


def _divide(side: int, resized: int) -> float:
    """Return the part that the crop keeps; the crop divided by it and rounded down is `resized` again."""
    part = side / resized
    return part if math.floor(side / part) == resized else math.nextafter(part, 0)
