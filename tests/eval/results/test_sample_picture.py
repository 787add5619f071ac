"""The picture of a run that needs Pillow alone."""

from __future__ import annotations

import io

import numpy as np
from fozo.eval.results.sample_picture import draw_samples
from PIL import Image
from report_doubles import domain, run_of

GREY, BLUE = (154, 160, 166), (0, 114, 178)


def draw(first: int, second: int) -> np.ndarray:  # type: ignore[type-arg]
    run = run_of([domain("fog", first, second), domain("snow", 50, 50)])
    red = np.zeros((32, 32, 3), np.uint8)
    red[..., 0] = 255
    content = draw_samples([run], {"fog": [red], "snow": [red, red]}, "title")
    with Image.open(io.BytesIO(content)) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def longest_run(pixels: np.ndarray, colour: tuple[int, int, int]) -> list[int]:  # type: ignore[type-arg]
    """Return the number of pixels of a colour in each line of the picture."""
    close = np.abs(pixels.astype(int) - colour).max(axis=2) <= 3
    return [int(count) for count in close.sum(axis=1)]


def test_bars_are_as_long_as_the_accuracies() -> None:
    pixels = draw(20, 60)
    # 300 pixels are 100 %, both ends included; the average of 20 and 50 % is 35 %, of 60 and 50 % it is 55 %.
    grey = {count for count in longest_run(pixels, GREY) if count > 20}
    blue = {count for count in longest_run(pixels, BLUE) if count > 20}
    assert grey == {61, 151, 106}
    assert blue == {181, 151, 166}


def test_samples_are_in_the_picture() -> None:
    red = np.abs(draw(20, 60).astype(int) - (255, 0, 0)).max(axis=2) <= 3
    assert red.sum() == 3 * 48 * 48


def test_the_picture_is_the_same_every_time() -> None:
    np.testing.assert_array_equal(draw(20, 60), draw(20, 60))
