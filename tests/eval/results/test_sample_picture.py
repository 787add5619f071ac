"""The picture of a run that needs Pillow alone."""

from __future__ import annotations

import io

import numpy as np
from fozo.eval.results.sample_picture import draw_samples
from PIL import Image
from report_doubles import domain, method_result, run_of

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


def test_six_methods_have_their_colours_in_the_legend_and_their_bars() -> None:
    labels = ("no_adapt", "zero", "stss", "tda", "gauss", "pizo")
    fog = domain("fog", 20, 60)
    fog.methods = {label: method_result(100, 50) for label in labels}
    with Image.open(io.BytesIO(draw_samples([run_of([fog], labels=labels)], {"fog": []}, "title"))) as image:
        pixels = np.asarray(image.convert("RGB"))
    for colour in (
        (154, 160, 166),
        (0, 114, 178),
        (213, 94, 0),
        (0, 158, 115),
        (204, 121, 167),
        (230, 159, 0),
    ):
        counts = longest_run(pixels, colour)
        assert 13 in counts, colour  # the square of the legend, whole
        assert counts.count(151) >= 2 * 8, colour  # half of a bar, in the row and in the average


def test_samples_are_in_the_picture() -> None:
    red = np.abs(draw(20, 60).astype(int) - (255, 0, 0)).max(axis=2) <= 3
    assert red.sum() == 3 * 48 * 48


def test_the_picture_is_the_same_every_time() -> None:
    np.testing.assert_array_equal(draw(20, 60), draw(20, 60))
