"""Picture of a run beside some of its images, drawn with Pillow, which every installation has."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from .average import average_rate, compute_averages
from .outcome import Run

# As in the pictures of `fozo adapt`.
_COLOURS = ("#9aa0a6", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_INK, _FAINT = "#202124", "#e8eaed"
_SIDE, _GAP, _MARGIN = 48, 6, 16  # of an image, and around it, in pixels
_NAME, _BAR = 150, 300  # width of the names, and of a bar of 100 %
_THINNEST = 16  # height of a bar with the space around it
_TITLE, _FONT = 34, 14


def draw_samples(
    runs: Sequence[Run], samples: Mapping[str, Sequence[NDArray[np.uint8]]], title: str
) -> bytes:
    """Return a PNG with a row per domain: its name, some images, and a bar of accuracy per method.

    Args:
        runs: the runs; bars are means over them, and the last row is the average over the corruptions.
        samples: images by name of the domain, uint8 `[H, W, 3]`, as many for each domain.
        title: text above the rows.
    """
    averages = compute_averages(runs)
    rows = {name: _average_domain(runs, name, list(averages)) for name in samples}
    rows["average"] = [average.accuracy for average in averages.values()]
    count = max(map(len, samples.values()))
    left = _MARGIN + _NAME + count * (_SIDE + _GAP) + _GAP
    row_height = max(_SIDE, _THINNEST * len(averages))
    height = _MARGIN + _TITLE * 2 + len(rows) * (row_height + _GAP) + _MARGIN
    picture = Image.new("RGB", (left + _BAR + 60 + _MARGIN, height), "white")
    draw = ImageDraw.Draw(picture)
    draw.text((_MARGIN, _MARGIN), title, fill=_INK, font=ImageFont.load_default(_FONT + 2))
    _draw_legend(draw, list(averages), (left, _MARGIN + _TITLE))
    for number, (name, rates) in enumerate(rows.items()):
        top = _MARGIN + 2 * _TITLE + number * (row_height + _GAP)
        middle = top + row_height // 2
        draw.text((_MARGIN, middle), name, fill=_INK, font=ImageFont.load_default(_FONT), anchor="lm")
        for column, pixels in enumerate(samples.get(name, ())):
            image = Image.fromarray(pixels).resize((_SIDE, _SIDE), Image.Resampling.NEAREST)
            picture.paste(image, (_MARGIN + _NAME + column * (_SIDE + _GAP), middle - _SIDE // 2))
        _draw_bars(draw, rates, (left, top), row_height)
    content = io.BytesIO()
    picture.quantize(128).save(content, "PNG", optimize=True)
    return content.getvalue()


def _average_domain(runs: Sequence[Run], name: str, labels: Sequence[str]) -> list[float]:
    """Return the accuracy of each method on a domain, averaged over the runs."""
    results = [domain for run in runs for domain in run.domains if domain.name == name]
    return [average_rate(results, label, "accuracy") for label in labels]


def _draw_legend(draw: ImageDraw.ImageDraw, labels: Sequence[str], corner: tuple[int, int]) -> None:
    """Write the label of each method behind a square of its colour, further to the left where many are."""
    left, top = corner
    font = ImageFont.load_default(_FONT)
    right = left + _BAR + 60  # of the numbers behind the bars
    length = sum(38 + int(draw.textlength(label, font)) for label in labels)
    left = max(_MARGIN, min(left, right - length))
    for number, label in enumerate(labels):
        draw.rectangle((left, top + 2, left + 12, top + 14), fill=_COLOURS[number % len(_COLOURS)])
        draw.text((left + 18, top), label, fill=_INK, font=font)
        left += 18 + int(draw.textlength(label, font)) + 20


def _draw_bars(
    draw: ImageDraw.ImageDraw, rates: Sequence[float], corner: tuple[int, int], row_height: int
) -> None:
    """Draw one bar per method, below each other, on a faint bar of 100 %."""
    left, top = corner
    height = row_height // len(rates)
    font = ImageFont.load_default(min(_FONT, height - 4))
    for number, rate in enumerate(rates):
        upper = top + number * height + 2
        lower = upper + height - 5
        draw.rectangle((left, upper, left + _BAR, lower), fill=_FAINT)
        length = round(_BAR * rate)
        draw.rectangle((left, upper, left + length, lower), fill=_COLOURS[number % len(_COLOURS)])
        middle = (upper + lower) // 2
        draw.text((left + _BAR + 8, middle), f"{100 * rate:.1f} %", fill=_INK, font=font, anchor="lm")
