"""One image file, read and decoded as RGB, with remarks on what a user may not expect of it."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from ..engine.errors import InputError, reason
from .reading import Reading

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "PPM")

# Of 16-bit images: the largest value that 12 bits can hold, and a quarter of the range.
_TWELVE_BITS, _QUARTER = 0x0FFF, 0x3FFF
_ORIENTATION = 0x0112  # tag in EXIF
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_WITH_EXIF = ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")
_SRGB_NAMES = (b"sRGB", "sRGB".encode("utf-16-be"), b"c2ci")  # the last one is of a minimal profile

_PIXELS_OF_JPEG = 0xFFFF**2  # at most
_START_OF_SCAN = b"\xff\xda"
_SCALES = (2, 4, 8)  # by which libjpeg can divide while it decodes

Remark = Literal["orientation", "transparency", "cmyk", "profile", "frames", "dark", "reduced"]


@dataclass(frozen=True)
class DecodedImage:
    """An image, and remarks on it.

    Attributes:
        image: RGB.
        remarks: what was ignored or dropped in reading it.
    """

    image: Image.Image
    remarks: tuple[Remark, ...]


def decode_file(file: Path, reading: Reading) -> DecodedImage:
    """Read and decode one image file; safe to call from several threads at once.

    Raises:
        InputError: the file is missing, unreadable, damaged, too large, in another format, or has 16-bit
            values of which only 12 bits or fewer are used.
    """
    try:
        if file.exists() and not file.is_file():
            raise InputError(f"expected an image file, found a folder or a device: {file}; name a file")
        with file.open("rb") as stream:
            if not stream.read(1):
                raise InputError(f"expected an image, found an empty file: {file}; replace or remove it")
            with _open(stream, file, reading) as image:
                return _decode(image, file, reading)
    except OSError as error:
        raise InputError(
            f"cannot read the image {file}: {reason(error)}; check the path and its permissions"
        ) from error


def _open(stream: IO[bytes], path: Path, reading: Reading) -> Image.Image:
    """Read only the header, and refuse an image that is too large, or prepare to reduce it."""
    max_pixels = reading.max_pixels
    try:
        image = _open_header(stream, max_pixels if reading.reduced_above is None else _PIXELS_OF_JPEG)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(_describe_size(stream, path, "far more pixels", reading)) from error
    except UnidentifiedImageError as error:
        raise InputError(
            f"expected an image in one of {', '.join(FORMATS)}, found something else or a damaged "
            f"file: {path}; convert, replace or remove it"
        ) from error
    except Exception as error:  # Pillow's readers raise nearly anything on damaged headers
        raise InputError(_describe_damage(path, error)) from error
    if image.width * image.height > max_pixels:
        is_reduced = reading.reduced_above is not None and _reduce(image, stream, max_pixels)
        if not is_reduced:
            raise InputError(_describe_size(stream, path, f"{image.width}x{image.height}", reading))
    return image


def _reduce(image: Image.Image, stream: IO[bytes], max_pixels: int) -> bool:
    """Let a JPEG file be decoded at a fraction of its size that fits; return whether that can be done.

    Progressive files, and others with several scans, take the memory of the whole image in any case.
    """
    if not isinstance(image, JpegImageFile) or "progressive" in image.info:
        return False
    if _count_components_of_first_scan(stream) != image.layers:
        return False
    width, height = image.size
    for scale in _SCALES:
        if math.ceil(width / scale) * math.ceil(height / scale) <= max_pixels:
            image.draft(None, (max(1, width // scale), max(1, height // scale)))
            return image.width * image.height <= max_pixels
    return False


def _count_components_of_first_scan(stream: IO[bytes]) -> int:
    """Return how many colour components of a JPEG file come together; 0 for damaged ones."""
    stream.seek(2)
    while (marker := stream.read(2))[:1] == b"\xff":
        length = int.from_bytes(stream.read(2), "big")
        if marker == _START_OF_SCAN:
            return int.from_bytes(stream.read(1), "big")
        stream.seek(max(0, length - 2), io.SEEK_CUR)
    return 0


def _open_header(stream: IO[bytes], max_pixels: int) -> Image.Image:
    """Open an image with Pillow, without Pillow's own limit where ours is larger."""
    if Image.MAX_IMAGE_PIXELS is None or max_pixels <= 2 * Image.MAX_IMAGE_PIXELS:
        return Image.open(stream, formats=FORMATS)
    Image.init()  # that limit is global, and only `Image.open` applies it (and WebP, whose images are small)
    stream.seek(0)
    beginning = stream.read(16)
    for name in FORMATS:
        factory, accept = Image.OPEN[name]
        if accept is None or accept(beginning) is True:
            stream.seek(0)
            return factory(stream, "")
    raise UnidentifiedImageError


def _decode(image: Image.Image, path: Path, reading: Reading) -> DecodedImage:
    try:
        is_deep = _has_16_bits(image)
        is_reduced = isinstance(image, JpegImageFile) and bool(image.decoderconfig)
        image.load()
        rgb = _to_rgb(image)
        remarks = _list_remarks(image)
        remarks += ["reduced"] if is_reduced else []
        orientation = _read_orientation(image)
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged data
        raise InputError(_describe_damage(path, error)) from error
    if is_deep:
        largest = _find_largest_value(image, rgb)
        if largest is not None and largest <= _TWELVE_BITS:
            raise InputError(
                f"expected values up to 65,535 in a 16-bit image, found none above {largest:,} in {path}: an "
                "image of 12 bits or fewer, which would be read as nearly black; scale its values to the "
                "whole range, or save it with 8 bits"
            )
        if largest is not None and largest <= _QUARTER:
            remarks.append("dark")
    if orientation in _TRANSPOSE:
        if reading.exif_orientation == "apply":
            rgb = rgb.transpose(_TRANSPOSE[orientation])
        else:
            remarks.append("orientation")
    return DecodedImage(rgb, tuple(remarks))


def _to_rgb(image: Image.Image) -> Image.Image:
    if _is_deep_grey(image):
        return Image.fromarray((_get_grey_values(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point pixels, which have no fixed range")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # a detour that keeps the colours, without Pillow's warning
    return image.convert("RGB")


def _has_16_bits(image: Image.Image) -> bool:
    """Return whether a file, opened but not loaded, has 16-bit values whose range it does not declare."""
    tiles = image.tile if isinstance(image, ImageFile.ImageFile) else []
    arguments = [tile[3] for tile in tiles]  # PNG and PGM have 'RGB;16B' there, PPM ('RGB', 65535)
    return any(str(item).endswith(";16B") or (type(item) is tuple and 0xFFFF in item) for item in arguments)


def _is_deep_grey(image: Image.Image) -> bool:
    return image.mode in ("I", "I;16", "I;16B", "I;16L", "I;16N")


def _get_grey_values(image: Image.Image) -> NDArray[np.uint32]:
    return np.asarray(image).astype(np.uint32)


def _find_largest_value(image: Image.Image, rgb: Image.Image) -> int | None:
    """Return the largest of an image's 16-bit values; None if it is black however it is read.

    Of colours, Pillow has kept the upper 8 bits; the lower ones are taken as 255.
    """
    if _is_deep_grey(image):
        return int(_get_grey_values(image).max()) or None
    return max(high for _, high in rgb.getextrema()) << 8 | 0xFF  # type: ignore[misc]


def _list_remarks(image: Image.Image) -> list[Remark]:
    remarks: list[Remark] = []
    if image.mode == "CMYK":
        remarks.append("cmyk")
    elif _has_foreign_profile(image):
        remarks.append("profile")
    if _has_transparency(image):
        remarks.append("transparency")
    if image.format in ("PNG", "WEBP") and getattr(image, "is_animated", False):
        remarks.append("frames")
    return remarks


def _has_foreign_profile(image: Image.Image) -> bool:
    """Return whether a colour image has a profile that does not call itself sRGB."""
    profile = image.info.get("icc_profile") or b""
    is_colour = image.mode in ("RGB", "RGBA", "P", "PA")
    return is_colour and len(profile) > 0 and not any(name in profile for name in _SRGB_NAMES)


def _has_transparency(image: Image.Image) -> bool:
    """Return whether a pixel of an image is not opaque."""
    if "A" not in image.getbands() and "transparency" not in image.info:
        return False
    low, _ = image.convert("RGBA").getchannel("A").getextrema()
    return low < 255  # type: ignore[operator]


def _read_orientation(image: Image.Image) -> int:
    """Return the EXIF orientation; 1, upright, where there is none or it cannot be read."""
    if not any(name in image.info for name in _WITH_EXIF):
        return 1
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF data do not make an image unreadable
        return 1
    return value if isinstance(value, int) else 1


def _describe_size(stream: IO[bytes], path: Path, actual: str, reading: Reading) -> str:
    stream.seek(0)
    is_jpeg = stream.read(3) == b"\xff\xd8\xff"
    advice = "scale the image down, or raise the limit if you trust the file (--max-pixels)"
    if is_jpeg and reading.reduced_above is None:
        advice += ", or have it decoded at a fraction of its size (--large-jpegs reduce)"
    elif is_jpeg:
        advice = f"it is progressive, or an eighth of it is still too large, so it is not reduced: {advice}"
    return f"expected at most {reading.max_pixels:,} pixels, found {actual} in the header of {path}; {advice}"


def _describe_damage(path: Path, error: Exception) -> str:
    return f"expected a whole image, found damaged or unsupported data in {path}: {error}; replace it"
