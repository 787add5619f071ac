"""Reading, resizing and cropping image files, and refusing what cannot be read."""

from __future__ import annotations

import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fozo.data.images import center_crop, preprocess, read_image
from fozo.engine.bundle.preprocessing import Preprocessing
from fozo.engine.errors import InputError
from PIL import Image


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """Noise over a gradient: every rounding of the resampling shows."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 128, width)[None, :, None]
    pixels = ramp + rng.integers(0, 128, (height, width, 3))
    return Image.fromarray(pixels.astype(np.uint8))


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64))


@pytest.mark.parametrize("suffix", ["png", "bmp", "ppm"])
def test_lossless_formats_come_back_exactly(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    picture(31, 17).save(path)
    image = read_image(path)
    assert image.mode == "RGB"
    assert np.array_equal(np.array(image), np.array(picture(31, 17)))


@pytest.mark.parametrize(("suffix", "options"), [("jpg", {"quality": 90}), ("webp", {"lossless": True})])
def test_jpeg_and_webp_are_read(tmp_path: Path, suffix: str, options: dict[str, Any]) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.new("RGB", (40, 30), (200, 100, 50)).save(path, **options)
    difference = np.array(read_image(str(path))).astype(int) - (200, 100, 50)
    assert np.abs(difference).max() <= 2


def test_the_content_decides_and_not_the_name(tmp_path: Path) -> None:
    path = tmp_path / "png_in_fact.jpg"
    picture(8, 8).save(path, "PNG")
    assert np.array_equal(np.array(read_image(path)), np.array(picture(8, 8)))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA"])
def test_other_modes_become_what_pillow_converts_them_to(tmp_path: Path, mode: str) -> None:
    image = picture(12, 9).convert(mode)
    image.save(tmp_path / "a.png")
    result = read_image(tmp_path / "a.png")
    assert result.mode == "RGB"
    assert np.array_equal(np.array(result), np.array(image.convert("RGB")))


def test_cmyk_jpeg_is_read_as_rgb(tmp_path: Path) -> None:
    picture(16, 16).convert("CMYK").save(tmp_path / "a.jpg")
    assert read_image(tmp_path / "a.jpg").mode == "RGB"


def test_a_transparent_palette_keeps_its_colours_and_raises_no_warning(tmp_path: Path) -> None:
    image = picture(12, 9).quantize(8)
    image.save(tmp_path / "a.png", transparency=bytes([0, 128] + [255] * 6))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = read_image(tmp_path / "a.png")
    assert np.array_equal(np.array(result), np.array(image.convert("RGB")))


@pytest.mark.parametrize("suffix", ["png", "pgm"])
def test_16_bit_grey_keeps_its_upper_bits(tmp_path: Path, suffix: str) -> None:
    grey = (np.arange(64, dtype=np.uint16) * 1024).reshape(8, 8)
    if suffix == "png":
        Image.fromarray(grey).save(tmp_path / "a.png")
    else:
        (tmp_path / "a.pgm").write_bytes(b"P5 8 8 65535\n" + grey.astype(">u2").tobytes())
    pixels = np.array(read_image(tmp_path / f"a.{suffix}"))
    assert np.array_equal(pixels, np.repeat((grey >> 8)[:, :, None], 3, axis=2))


def test_exif_orientation_is_not_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: rotate by 90 degrees
    picture(20, 10).save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg").size == (20, 10)


def damaged_files() -> dict[str, bytes]:
    import io

    jpeg, png = io.BytesIO(), io.BytesIO()
    picture(64, 64).save(jpeg, "JPEG")
    picture(64, 64).save(png, "PNG")
    return {
        "cut.jpg": jpeg.getvalue()[:700],
        "header_only.jpg": jpeg.getvalue()[:20],
        "cut.png": png.getvalue()[: len(png.getvalue()) // 2],
        "scrambled.png": png.getvalue()[:60] + bytes(100) + png.getvalue()[160:],
        "text.jpg": b"I am not a picture.\n" * 10,
        "empty.png": b"",
        "bad.ppm": b"P6 many pixels 255\n",
        "cut.bmp": b"BM" + bytes(12),
        "cut.webp": b"RIFF\x40\0\0\0WEBPVP8 ",
    }


@pytest.mark.parametrize("name", sorted(damaged_files()))
def test_damaged_files_are_refused_by_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(damaged_files()[name])
    with pytest.raises(InputError, match=r"expected") as caught:
        read_image(path)
    assert str(path) in str(caught.value)


def test_cut_and_flipped_files_raise_nothing_but_input_error(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    for suffix in ("jpg", "png", "webp", "bmp", "ppm"):
        path = tmp_path / f"a.{suffix}"
        picture(24, 24).save(path)
        whole = np.frombuffer(path.read_bytes(), dtype=np.uint8)
        for _ in range(60):
            broken = whole[: rng.integers(1, len(whole) + 1)].copy()
            broken[rng.integers(0, min(len(broken), 64), 3)] = rng.integers(0, 256, 3)
            path.write_bytes(broken.tobytes())
            try:
                read_image(path, max_pixels=1_000_000)
            except InputError as error:
                assert str(path) in str(error)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("size", [(60_000, 60_000), (9_500, 10_000), (8_001, 8_000)])
def test_a_huge_header_is_refused_before_decoding(tmp_path: Path, size: tuple[int, int]) -> None:
    (tmp_path / "bomb.png").write_bytes(png_header(*size))
    with pytest.raises(InputError, match=r"at most 64,000,000 pixels.*bomb\.png"):
        read_image(tmp_path / "bomb.png")


@pytest.mark.filterwarnings("error::PIL.Image.DecompressionBombWarning")
def test_pillows_bomb_warning_as_an_error_is_refused_alike(tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(png_header(9_500, 10_000))
    with pytest.raises(InputError, match="pixels"):
        read_image(tmp_path / "bomb.png")


def test_the_pixel_cap_is_inclusive_and_leaves_pillows_alone(tmp_path: Path) -> None:
    before = Image.MAX_IMAGE_PIXELS
    picture(20, 10).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", max_pixels=200).size == (20, 10)
    with pytest.raises(InputError, match=r"at most 199 pixels, found 20x10"):
        read_image(tmp_path / "a.png", max_pixels=199)
    assert before == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("name", ["a.gif", "a.tiff", "a.jpg"])
def test_formats_outside_the_allow_list_are_refused(tmp_path: Path, name: str) -> None:
    picture(8, 8).save(tmp_path / name, "TIFF" if name == "a.tiff" else "GIF")
    with pytest.raises(InputError, match="one of JPEG, PNG, WEBP, BMP, PPM"):
        read_image(tmp_path / name)


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read the image .*none\.png"):
        read_image(tmp_path / "none.png")
    with pytest.raises(InputError, match="found a folder"):
        read_image(tmp_path)


def test_an_unreadable_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, mode: str) -> None:
        raise PermissionError(13, "Permission denied")

    picture(8, 8).save(tmp_path / "a.png")
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputError, match=r"a\.png: Permission denied; check the path and its permissions"):
        read_image(tmp_path / "a.png")


def test_files_are_closed(tmp_path: Path) -> None:
    picture(8, 8).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(png_header(30, 30))
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        read_image(tmp_path / "good.png").getpixel((0, 0))
        with pytest.raises(InputError):
            read_image(tmp_path / "bad.png")


def test_threads_read_the_same_as_one_thread(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.{suffix}" for i in range(8) for suffix in ("png", "webp", "jpg")]
    for i, path in enumerate(paths):
        picture(40, 30, seed=i).save(path)
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(read_image, paths))
    for image, path in zip(together, paths, strict=True):
        assert np.array_equal(np.array(image), np.array(read_image(path)))


SIZES = [(500, 375), (333, 500), (256, 256), (224, 224), (225, 247), (17, 11), (5, 300), (300, 6), (1, 1)]


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("crop_pct", [0.875, 0.9, 1.0])
def test_preprocess_is_timms_transform_to_the_bit(
    size: tuple[int, int], interpolation: str, crop_pct: float
) -> None:
    timm_data = pytest.importorskip("timm.data")
    transform = timm_data.create_transform(
        (3, 224, 224), is_training=False, interpolation=interpolation, crop_pct=crop_pct, normalize=False
    )
    how = Preprocessing((224, 224), int(224 / crop_pct), interpolation)
    expected = transform(picture(*size)).numpy().transpose(1, 2, 0)
    assert np.array_equal(preprocess(picture(*size), how), expected)


@pytest.mark.parametrize("crop_pct", [1.0, 0.95])
@pytest.mark.parametrize("size", [(500, 375), (11, 17), (224, 224)], ids=str)
def test_squash_is_timms_transform_to_the_bit(size: tuple[int, int], crop_pct: float) -> None:
    timm_data = pytest.importorskip("timm.data")
    transform = timm_data.create_transform(
        (3, 224, 224),
        is_training=False,
        interpolation="bicubic",
        crop_pct=crop_pct,
        crop_mode="squash",
        normalize=False,
    )
    result = preprocess(picture(*size), Preprocessing((224, 224), int(224 / crop_pct), "bicubic", "squash"))
    assert np.array_equal(result, transform(picture(*size)).numpy().transpose(1, 2, 0))


@pytest.mark.parametrize("crop", [(4, 4), (5, 4), (9, 7), (8, 3), (20, 21), (3, 30), (1, 1)], ids=str)
@pytest.mark.parametrize("size", [(7, 9), (10, 8), (3, 3)], ids=str)
def test_center_crop_is_torchvisions_to_the_bit(size: tuple[int, int], crop: tuple[int, int]) -> None:
    transforms = pytest.importorskip("torchvision.transforms")
    expected = np.array(transforms.CenterCrop(crop)(picture(*size)))
    result = center_crop(picture(*size), crop)
    assert result.shape == (*crop, 3)
    assert np.array_equal(result, expected)


def test_crops_are_uint8_contiguous_and_do_not_share_memory_with_the_image() -> None:
    image = picture(20, 20)
    crop = center_crop(image, (10, 10))
    assert crop.dtype == np.uint8
    assert crop.flags.c_contiguous
    crop[:] = 0
    assert np.array_equal(np.array(image), np.array(picture(20, 20)))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (((8, 8), 8, "cubic"), "interpolation must be one of nearest, .*'cubic'"),
        (((8, 8), 8, "bicubic", "border"), "crop mode one of center, squash, found .*'border'"),
        (((8, 8), 0), "positive integers"),
        (((8, 0), 8), "positive integers"),
        (((8, 8), "8"), "positive integers"),
        (((8, 8, 8), 8), "positive integers"),
    ],
)
def test_impossible_preprocessing_is_refused(values: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Preprocessing(*values)


def test_a_hair_thin_image_is_refused_rather_than_blown_up() -> None:
    with pytest.raises(InputError, match="1x300000 pixels"):
        preprocess(Image.new("RGB", (1, 300_000)), Preprocessing((224, 224), 256))
