"""JPEG files above the limit of pixels: refused, or decoded at a fraction of their size if asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doubles import draw_picture
from fozo.data.image_reader import ImageReader, describe_files
from fozo.data.images import preprocess
from fozo.data.reading import Reading
from fozo.engine.bundle.preprocessing import Preprocessing
from fozo.engine.errors import InputError
from fozo.eval.protocol import Protocol
from PIL import Image

WIDTH, HEIGHT = 401, 300


def save(path: Path, **options: Any) -> Path:
    Image.fromarray(draw_picture(3, (HEIGHT, WIDTH))).save(path, quality=95, **options)
    return path


def reduce_above(pixels: int, **options: Any) -> ImageReader:
    return ImageReader(Reading(pixels, large_jpegs="reduce", **options))


@pytest.mark.parametrize(
    ("limit", "size"),
    [
        (WIDTH * HEIGHT, (401, 300)),
        (WIDTH * HEIGHT - 1, (201, 150)),
        (201 * 150, (201, 150)),
        (201 * 150 - 1, (101, 75)),
        (101 * 75 - 1, (51, 38)),
    ],
)
def test_the_largest_fraction_that_fits_is_decoded(limit: int, size: tuple[int, int], tmp_path: Path) -> None:
    reader = reduce_above(limit)
    assert reader.read(save(tmp_path / "a.jpg")).size == size
    notes = [] if size == (WIDTH, HEIGHT) else ["1 image is larger than --max-pixels, decoded at a half"]
    assert [note.split(",")[0] for note in describe_files([reader])] == [note.split(",")[0] for note in notes]


def test_pixels_are_nearly_those_of_the_whole_image(tmp_path: Path) -> None:
    path, preprocessing = tmp_path / "a.jpg", Preprocessing((48, 48), 56)
    Image.fromarray(draw_picture(3, (1200, 1600))).save(path, quality=95)
    whole = preprocess(ImageReader().read(path), preprocessing).astype(int)
    for pixels in (800 * 600, 400 * 300):
        reduced = preprocess(reduce_above(pixels).read(path), preprocessing).astype(int)
        assert 0 < np.abs(whole - reduced).mean() < 1
    with Image.open(path) as image:
        assert np.array_equal(ImageReader().read(path), np.asarray(image)), "the default stays exact"


def test_reduced_photographs_are_turned_too(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path / "a.jpg", exif=exif)
    assert reduce_above(201 * 150, exif_orientation="apply").read(path).size == (150, 201)


def test_an_eighth_that_is_still_too_large_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="an eighth of it is still too large"):
        reduce_above(51 * 38 - 1).read(save(tmp_path / "a.jpg"))


def test_files_that_need_the_memory_of_the_whole_image_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", progressive=True)
    assert reduce_above(WIDTH * HEIGHT).read(path).size == (WIDTH, HEIGHT)
    with pytest.raises(InputError, match="it is progressive"):
        reduce_above(201 * 150).read(path)
    path = save(tmp_path / "scans.jpg")
    content = bytearray(path.read_bytes())
    content[content.index(b"\xff\xda") + 4] = 1  # components of the first of several scans
    path.write_bytes(content)
    with pytest.raises(InputError, match="is not reduced"):
        reduce_above(201 * 150).read(path)


@pytest.mark.parametrize("beyond_pillow", [False, True])
def test_the_error_says_that_jpeg_files_can_be_reduced(
    beyond_pillow: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if beyond_pillow:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    path = save(tmp_path / "a.jpg")
    with pytest.raises(InputError, match=r"at most 30,000 pixels.*\(--large-jpegs reduce\)"):
        ImageReader(Reading(30_000)).read(path)
    assert reduce_above(WIDTH * HEIGHT // 4 + 1000).read(path).size == (201, 150)
    save(tmp_path / "a.png")
    for reader in (ImageReader(Reading(30_000)), reduce_above(30_000)):
        with pytest.raises(InputError, match=r"pixels") as caught:
            reader.read(tmp_path / "a.png")
        assert "reduce" not in str(caught.value)


def test_a_cut_header_is_one_error(tmp_path: Path) -> None:
    content = save(tmp_path / "a.jpg").read_bytes()
    (tmp_path / "b.jpg").write_bytes(content[: content.index(b"\xff\xda") + 3])
    with pytest.raises(InputError):
        reduce_above(201 * 150).read(tmp_path / "b.jpg")


def test_the_protocol_says_so() -> None:
    protocol = Protocol("x", "reset", (), "all", (0,), 4, "all", reduced_above=Reading(10**6).reduced_above)
    assert "reduced" not in protocol.describe()
    limit = Reading(10**6, large_jpegs="reduce").reduced_above
    protocol = Protocol("x", "reset", (), "all", (0,), 4, "all", reduced_above=limit)
    assert protocol.describe().endswith("JPEG files above 1,000,000 pixels reduced")
