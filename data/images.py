"""From an image file to the uint8 array that a graph reads, with Pillow and NumPy alone.

The arithmetic of resizing and cropping is that of torchvision's `Resize` and `CenterCrop` on Pillow images,
which is what timm evaluates with: the arrays are the same to the bit.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..engine.bundle.preprocessing import INTERPOLATIONS, Preprocessing
from ..engine.errors import InputError
from .image_file import decode_file
from .reading import MAX_PIXELS, Reading

_RESAMPLING = {name: Image.Resampling[name.upper()] for name in INTERPOLATIONS}


def read_image(path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Read and decode one image file as RGB; safe to call from several threads at once.

    Transparency is dropped, a 16-bit image keeps its upper 8 bits, and an orientation in EXIF is not applied,
    as torchvision's loader does not apply it either.

    Args:
        path: a JPEG, PNG, WebP, BMP or PPM file, recognised by its content, whatever it is called.
        max_pixels: the largest width times height to decode; checked against the header beforehand.

    Raises:
        InputError: the file is missing, unreadable, damaged, too large, in another format, or has 16-bit
            values of which only 12 bits or fewer are used.
    """
    return decode_file(Path(path), Reading(max_pixels)).image


def preprocess(image: Image.Image, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Resize and crop as timm's evaluation transform does before it makes a tensor.

    Args:
        image: RGB, of any size.
        preprocessing: `center` resizes the shorter side to its `resize` pixels, `squash` both sides,
            regardless of proportions; both then take the middle, padding smaller images with black. With a
            frame, all of this is done in proportion, and the frame put around it.

    Returns:
        uint8 of shape [H, W, 3] with (H, W) = `preprocessing.size`.

    Raises:
        InputError: the image is so thin that resizing it would take more than `MAX_PIXELS`.
    """
    if preprocessing.frame:
        return add_frame(preprocess(image, preprocessing.inside), preprocessing.frame)
    squash = preprocessing.crop_mode == "squash"
    length = preprocessing.resize
    target = (length, length) if squash else _scale_shorter_side(length, image.size)
    if target[0] * target[1] > MAX_PIXELS:
        raise InputError(
            f"expected ordinary proportions, found an image of {image.width}x{image.height} pixels, which "
            f"resizing would make {target[1]}x{target[0]}; crop it first"
        )
    if (image.height, image.width) != target:
        image = image.resize((target[1], target[0]), _RESAMPLING[preprocessing.interpolation])
    return center_crop(image, preprocessing.size)


def add_frame(pixels: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    """Return an image `[H, W, 3]` in a black frame of so many pixels."""
    return np.pad(pixels, ((width, width), (width, width), (0, 0)))


def center_crop(image: Image.Image, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Take the middle of `image`, padding with black where it is smaller.

    Args:
        image: RGB, of any size.
        size: height and width of the result, in pixels.

    Returns:
        uint8 of shape [*size, 3].
    """
    pixels = np.array(image if image.mode == "RGB" else image.convert("RGB"))
    pad = [_compute_padding(have, want) for have, want in zip(pixels.shape, size, strict=False)]
    if any(map(any, pad)):
        pixels = np.pad(pixels, [*pad, (0, 0)])
    # Python rounds halves to even here, and so does torchvision.
    top, left = (round((have - want) / 2) for have, want in zip(pixels.shape, size, strict=False))
    return np.ascontiguousarray(pixels[top : top + size[0], left : left + size[1]])


def _scale_shorter_side(length: int, size: tuple[int, int]) -> tuple[int, int]:
    """Return (height, width) after resizing a (width, height) image; the longer side is rounded down."""
    width, height = size
    if width <= height:
        return int(length * height / width), length
    return length, int(length * width / height)


def _compute_padding(have: int, want: int) -> tuple[int, int]:
    missing = max(want - have, 0)
    return missing // 2, missing - missing // 2
