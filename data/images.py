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
    """Read and decode one image file as RGB; safe to call from several threads at once.

    Transparency is dropped, a 16-bit grey image keeps its upper 8 bits, and an orientation in EXIF is not
    applied, as torchvision's loader does not apply it either.

    Args:
        path: a file in one of `FORMATS`, recognised by its content, whatever it is called.
        max_pixels: the largest width times height to decode; checked against the header beforehand.

    Raises:
        InputError: the file is missing, unreadable, damaged, too large, or in another format.
    """
    file = Path(path)
    try:
        if file.exists() and not file.is_file():
            raise InputError(f"expected an image file, found a folder or a device: {file}; name a file")
        with file.open("rb") as stream:
            if not stream.read(1):
                raise InputError(f"expected an image, found an empty file: {file}; replace or remove it")
            with _open(stream, file, max_pixels) as image:
                return _decode(image, file)
    except OSError as error:
        raise InputError(
            f"cannot read the image {file}: {error.strerror or error}; check the path and its permissions"
        ) from error


def preprocess(image: Image.Image, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Resize and crop as timm's evaluation transform does before it makes a tensor.

    Args:
        image: RGB, of any size.
        preprocessing: `center` resizes the shorter side to its `resize` pixels, `squash` both sides,
            regardless of proportions; both then take the middle, padding smaller images with black.

    Returns:
        uint8 of shape [H, W, 3] with (H, W) = `preprocessing.size`.

    Raises:
        InputError: the image is so thin that resizing it would take more than `MAX_PIXELS`.
    """
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


def list_images(folder: str | os.PathLike[str]) -> list[Path]:
    """List all image files below `folder`, ordered by their relative POSIX path.

    A file counts by its suffix (one of `SUFFIXES`, in either case). Hidden files and folders are skipped;
    links to folders are not followed.

    Raises:
        InputError: `folder` is missing, is not a folder, cannot be read, or contains no image.
    """
    root = Path(folder)
    if not root.is_dir():
        actual = "a file" if root.exists() else "nothing"
        raise InputError(f"expected a folder of images, found {actual}: {root}; check the path")
    paths = [Path(at, name) for at, names in _walk(root) for name in names if is_image_name(name)]
    if not paths:
        raise InputError(
            f"found no image in the folder {root}; expected files ending in {', '.join(SUFFIXES)}"
        )
    return sorted(paths, key=lambda path: path.relative_to(root).as_posix())


def is_image_name(name: str) -> bool:
    """Return whether a file counts as an image: it has one of `SUFFIXES` and is not hidden."""
    return not name.startswith(".") and name.lower().endswith(SUFFIXES)


def _open(stream: IO[bytes], path: Path, max_pixels: int) -> Image.Image:
    """Read only the header, and refuse an image that is too large."""
    try:
        image = Image.open(stream, formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(_describe_size(path, "far more pixels", max_pixels)) from error
    except UnidentifiedImageError as error:
        raise InputError(
            f"expected an image in one of {', '.join(FORMATS)}, found something else or a damaged "
            f"file: {path}; convert, replace or remove it"
        ) from error
    except Exception as error:  # Pillow's readers raise nearly anything on damaged headers
        raise InputError(_describe_damage(path, error)) from error
    if image.width * image.height > max_pixels:
        image.close()
        raise InputError(_describe_size(path, f"{image.width}x{image.height}", max_pixels))
    return image


def _decode(image: Image.Image, path: Path) -> Image.Image:
    try:
        image.load()
        return _to_rgb(image)
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged data
        raise InputError(_describe_damage(path, error)) from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "I;16", "I;16B", "I;16L", "I;16N"):
        return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point pixels, which have no fixed range")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # a detour that keeps the colours, without Pillow's warning
    return image.convert("RGB")


def _scale_shorter_side(length: int, size: tuple[int, int]) -> tuple[int, int]:
    """Return (height, width) after resizing a (width, height) image; the longer side is rounded down."""
    width, height = size
    if width <= height:
        return int(length * height / width), length
    return length, int(length * width / height)


def _compute_padding(have: int, want: int) -> tuple[int, int]:
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


def _describe_size(path: Path, actual: str, max_pixels: int) -> str:
    return (
        f"expected at most {max_pixels:,} pixels, found {actual} in the header of {path}; "
        "scale the image down, or raise the limit if you trust the file"
    )


def _describe_damage(path: Path, error: Exception) -> str:
    return f"expected a whole image, found damaged or unsupported data in {path}: {error}; replace it"
