"""From an image file to the uint8 array that a graph reads, with Pillow and NumPy alone.

The arithmetic of resizing and cropping is that of torchvision's `Resize` and `CenterCrop` on Pillow images,
which is what timm evaluates with: the arrays are the same to the bit.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ..engine.bundle.preprocessing import INTERPOLATIONS, Preprocessing
from ..engine.errors import InputError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "PPM")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".pgm", ".pbm", ".pnm")
MAX_PIXELS = 64_000_000

_RESAMPLING = {name: Image.Resampling[name.upper()] for name in INTERPOLATIONS}


def read_image(path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Reads and decodes one image file as RGB; safe to call from several threads at once.

    Transparency is dropped, a 16-bit grey image keeps its upper 8 bits, and an orientation in EXIF is not
    applied, as torchvision's loader does not apply it either.

    Args:
        path: a file in one of `FORMATS`, recognised by its content, whatever it is called.
        max_pixels: the largest width times height to decode; checked against the header beforehand.

    Raises:
        InputError: the file is missing, unreadable, damaged, too large, or in another format.
    """
    place = Path(path)
    try:
        if place.exists() and not place.is_file():
            raise InputError(f"expected an image file, found a folder or a device: {place}; name a file")
        with place.open("rb") as stream:
            if not stream.read(1):
                raise InputError(f"expected an image, found an empty file: {place}; replace or remove it")
            with _open(stream, place, max_pixels) as image:
                return _decode(image, place)
    except OSError as error:
        raise InputError(
            f"cannot read the image {place}: {error.strerror or error}; check the path and its permissions"
        ) from error


def preprocess(image: Image.Image, how: Preprocessing) -> NDArray[np.uint8]:
    """Resizes and crops as timm's evaluation transform does before it makes a tensor.

    Args:
        image: RGB, of any size.
        how: `center` resizes the shorter side to `how.resize` pixels, `squash` both sides, regardless of
            proportions; both then take the middle, padding with black where the image is smaller.

    Returns:
        uint8 of shape [H, W, 3] with (H, W) = `how.size`.

    Raises:
        InputError: the image is so thin that resizing it would take more than `MAX_PIXELS`.
    """
    squash = how.crop_mode == "squash"
    target = (how.resize, how.resize) if squash else _shorter_side_to(how.resize, image.size)
    if target[0] * target[1] > MAX_PIXELS:
        raise InputError(
            f"expected ordinary proportions, found an image of {image.width}x{image.height} pixels, which "
            f"resizing would make {target[1]}x{target[0]}; crop it first"
        )
    if (image.height, image.width) != target:
        image = image.resize((target[1], target[0]), _RESAMPLING[how.interpolation])
    return center_crop(image, how.size)


def center_crop(image: Image.Image, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Takes the middle of `image`, padding with black where it is smaller.

    Args:
        image: RGB, of any size.
        size: height and width of the result, in pixels.

    Returns:
        uint8 of shape [*size, 3].
    """
    pixels = np.array(image if image.mode == "RGB" else image.convert("RGB"))
    pad = [_padding(have, want) for have, want in zip(pixels.shape, size, strict=False)]
    if any(map(any, pad)):
        pixels = np.pad(pixels, [*pad, (0, 0)])
    # Python rounds halves to even here, and so does torchvision.
    top, left = (round((have - want) / 2) for have, want in zip(pixels.shape, size, strict=False))
    return np.ascontiguousarray(pixels[top : top + size[0], left : left + size[1]])


def list_images(folder: str | os.PathLike[str]) -> list[Path]:
    """All image files below `folder`, ordered by their relative POSIX path.

    A file counts by its suffix (one of `SUFFIXES`, in either case). Hidden files and folders are skipped;
    links to folders are not followed.

    Raises:
        InputError: `folder` is missing, is not a folder, cannot be read, or contains no image.
    """
    root = Path(folder)
    if not root.is_dir():
        found = "a file" if root.exists() else "nothing"
        raise InputError(f"expected a folder of images, found {found}: {root}; check the path")
    paths = [Path(at, name) for at, names in _walk(root) for name in names if is_image_name(name)]
    if not paths:
        raise InputError(
            f"found no image in the folder {root}; expected files ending in {', '.join(SUFFIXES)}"
        )
    return sorted(paths, key=lambda path: path.relative_to(root).as_posix())


def is_image_name(name: str) -> bool:
    """Whether a file counts as an image: by its suffix, and not if it is hidden."""
    return not name.startswith(".") and name.lower().endswith(SUFFIXES)


def _open(stream: IO[bytes], place: Path, max_pixels: int) -> Image.Image:
    """Reads the header only, and refuses what would not fit."""
    try:
        image = Image.open(stream, formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(_too_large(place, "far more pixels", max_pixels)) from error
    except UnidentifiedImageError as error:
        raise InputError(
            f"expected an image in one of {', '.join(FORMATS)}, found something else or a damaged "
            f"file: {place}; convert, replace or remove it"
        ) from error
    except Exception as error:  # Pillow's readers raise nearly anything on damaged headers
        raise InputError(_damaged(place, error)) from error
    if image.width * image.height > max_pixels:
        image.close()
        raise InputError(_too_large(place, f"{image.width}x{image.height}", max_pixels))
    return image


def _decode(image: Image.Image, place: Path) -> Image.Image:
    try:
        image.load()
        return _to_rgb(image)
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged data
        raise InputError(_damaged(place, error)) from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "I;16", "I;16B", "I;16L", "I;16N"):
        return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point pixels, which have no fixed range")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # a detour that keeps the colours, without Pillow's warning
    return image.convert("RGB")


def _shorter_side_to(length: int, size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) after resizing a (width, height) image; the longer side is rounded down."""
    width, height = size
    if width <= height:
        return int(length * height / width), length
    return length, int(length * width / height)


def _padding(have: int, want: int) -> tuple[int, int]:
    missing = max(want - have, 0)
    return missing // 2, missing - missing // 2


def _walk(root: Path) -> list[tuple[str, list[str]]]:
    def fail(error: OSError) -> None:
        raise InputError(f"cannot read the folder {error.filename}: {error.strerror}; check its permissions")

    visited = []
    for at, folders, names in os.walk(root, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        visited.append((at, names))
    return visited


def _too_large(place: Path, found: str, max_pixels: int) -> str:
    return (
        f"expected at most {max_pixels:,} pixels, found {found} in the header of {place}; "
        "scale the image down, or raise the limit if you trust the file"
    )


def _damaged(place: Path, error: Exception) -> str:
    return f"expected a whole image, found damaged or unsupported data in {place}: {error}; replace it"
