"""Image files that fit two readings: read right, refused, or counted in a note."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fozo.data.image_reader import ImageReader, describe_files
from fozo.data.reading import Reading
from fozo.engine.errors import InputError
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps


def draw(width: int = 20, height: int = 10) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def save_16_bit_png(path: Path, values: NDArray[np.uint16]) -> Path:
    """Save [H, W, C] with C of 1, 3 or 4 channels; Pillow writes grey ones only."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    height, width, channels = values.shape
    kind = {1: 0, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    return path


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("largest", [255, 1023, 4095])
def test_twelve_bits_in_sixteen_are_refused_instead_of_read_as_black(
    channels: int, largest: int, tmp_path: Path
) -> None:
    values = np.linspace(0, largest, 4 * 4 * channels).reshape(4, 4, channels).astype(np.uint16)
    path = save_16_bit_png(tmp_path / "scan.png", values)
    with pytest.raises(InputError, match=r"up to 65,535 .*scan\.png: an image of 12 bits or fewer"):
        ImageReader().read(path)


def test_sixteen_bits_that_are_used_are_read_and_dark_ones_counted(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 16).reshape(4, 4, 1).astype(np.uint16)
    reader = ImageReader()
    bright = reader.read(save_16_bit_png(tmp_path / "a.png", values))
    assert np.array_equal(np.asarray(bright)[..., 0], values[..., 0] >> 8)
    reader.read(save_16_bit_png(tmp_path / "black.png", np.zeros_like(values)))
    assert describe_files([reader]) == []
    reader.read(save_16_bit_png(tmp_path / "b.png", values // 4))
    assert describe_files([reader])[0].startswith("1 image is of 16 bits, of which the upper two are never")


def test_a_declared_range_is_used(tmp_path: Path) -> None:
    """PGM says how large its values can be: 12 bits are then no riddle."""
    grey = np.linspace(0, 4095, 16).astype(">u2")
    (tmp_path / "a.pgm").write_bytes(b"P5 4 4 4095\n" + grey.tobytes())
    assert np.asarray(ImageReader().read(tmp_path / "a.pgm")).max() == 255


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations_of_photographs_are_counted_or_applied(orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    draw().save(tmp_path / "phone.jpg", exif=exif)
    plain, turning = ImageReader(), ImageReader(Reading(exif_orientation="apply"))
    with Image.open(tmp_path / "phone.jpg") as stored:
        assert np.array_equal(plain.read(tmp_path / "phone.jpg"), np.asarray(stored.convert("RGB")))
        upright = ImageOps.exif_transpose(stored)
        assert np.array_equal(turning.read(tmp_path / "phone.jpg"), np.asarray(upright.convert("RGB")))
    notes = [] if orientation == 1 else ["1 image is turned by EXIF data, which timm and torchvision ignore"]
    assert [note.split(" and so")[0] for note in describe_files([plain])] == notes
    assert describe_files([turning]) == []


def test_a_file_counts_once_however_often_and_by_whom_it_is_read(tmp_path: Path) -> None:
    draw().convert("CMYK").save(tmp_path / "a.jpg")
    draw().convert("CMYK").save(tmp_path / "b.jpg")
    first, second = ImageReader(), ImageReader()
    for name in ("a.jpg", "b.jpg", "a.jpg"):
        first.read(tmp_path / name)
    second.read(tmp_path / "b.jpg")
    assert describe_files([first, second]) == [
        "2 images are in CMYK, converted to RGB without regard to a colour profile"
    ]


def save_with_alpha(path: Path, alpha: int) -> None:
    image = draw().convert("RGBA")
    image.putalpha(alpha)
    image.save(path)


def rename_profile() -> bytes:
    """Return the profile of sRGB under another name."""
    profile: bytes = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile.replace(b"sRGB", b"mine").replace("sRGB".encode("utf-16-be"), "mine".encode("utf-16-be"))


@pytest.mark.parametrize(
    ("save", "note"),
    [
        (lambda path: save_with_alpha(path, 128), "transparent in places"),
        (lambda path: save_with_alpha(path, 255), None),
        (lambda path: draw().save(path, icc_profile=rename_profile()), "in colours other than sRGB"),
        (
            lambda path: draw().save(
                path, icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
            ),
            None,
        ),
        (
            lambda path: draw().save(path, save_all=True, append_images=[ImageOps.invert(draw())]),
            "animated; only the first picture was read",
        ),
        (lambda path: draw().save(path), None),
    ],
    ids=["transparent", "opaque alpha", "other profile", "sRGB profile", "animated", "plain"],
)
def test_what_is_dropped_is_noted(save: Any, note: str | None, tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    reader = ImageReader()
    with Image.open(tmp_path / "a.png") as stored:
        expected = np.asarray(stored.convert("RGB"))
    assert np.array_equal(reader.read(tmp_path / "a.png"), expected), "parity with torchvision's loader"
    notes = describe_files([reader])
    assert (note in notes[0] and len(notes) == 1) if note else notes == []


def test_damaged_exif_data_do_not_make_an_image_unreadable(tmp_path: Path) -> None:
    draw().save(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff nonsense")
    assert ImageReader().read(tmp_path / "a.jpg").size == (20, 10)


def test_the_limit_of_pixels_can_be_raised_beyond_pillows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for suffix in ("jpg", "png", "bmp", "ppm"):
        draw(40, 30).save(tmp_path / f"a.{suffix}")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(InputError, match=r"at most 150 pixels.*\(--max-pixels\)"):
        ImageReader(Reading(max_pixels=150)).read(tmp_path / "a.png")
    for suffix in ("jpg", "png", "bmp", "ppm"):
        assert ImageReader(Reading(max_pixels=1200)).read(tmp_path / f"a.{suffix}").size == (40, 30)
    (tmp_path / "text.png").write_bytes(b"no picture at all, only text")
    with pytest.raises(InputError, match="one of JPEG, PNG"):
        ImageReader(Reading(max_pixels=1200)).read(tmp_path / "text.png")


def test_an_unreadable_file_can_be_skipped(tmp_path: Path) -> None:
    draw().save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"")
    reader = ImageReader()
    assert reader.read_or_skip(tmp_path / "bad.png") is None
    assert reader.read_or_skip(tmp_path / "good.png") is not None
    (note,) = describe_files([reader])
    assert note.startswith(
        "1 unreadable image was skipped, the first: expected an image, found an empty file"
    )
