"""Splits of images into those for calibration and those that judge the result."""

from __future__ import annotations

import numpy as np
import pytest
from fozo.data.source import SourceImages
from fozo.engine.errors import InputError
from quant_doubles import CleanImages

onnx = pytest.importorskip("onnx", reason="quantisation reads and writes graphs with onnx")

from fozo.quant.image_split import split_images  # noqa: E402


def test_split_of_images(clean_images: CleanImages) -> None:
    images = clean_images(100, labels=np.arange(100) % 7)
    pixels = [images.load(i).tobytes() for i in range(100)]

    def indices(part: SourceImages) -> list[int]:
        found = [pixels.index(part.load(i).tobytes()) for i in range(part.count)]
        assert part.labels is not None
        assert part.labels.tolist() == [index % 7 for index in found]
        return found

    first, second = (indices(part) for part in split_images(images, 30, 50, 0))
    assert (len(first), len(second)) == (30, 50)
    assert not set(first) & set(second)
    assert len(set(first)) == 30 and len(set(second)) == 50
    assert [indices(part) for part in split_images(images, 30, 50, 0)] == [first, second]
    assert [indices(part) for part in split_images(images, 30, 50, 1)] != [first, second]
    assert max(first) > 50 and max(second) > 50
    for wanted, counts in (((60, 60), (50, 50)), ((30, 500), (30, 70)), ((60, 40), (60, 40))):
        assert tuple(part.count for part in split_images(images, *wanted, 0)) == counts


def test_too_few_images_to_split(clean_images: CleanImages) -> None:
    with pytest.raises(InputError, match=r"at least 20 images.*found 39 in all.*more clean images"):
        split_images(clean_images(39), 256, 512, 0)
    with pytest.raises(InputError, match=r"at least 20 images.*19 were asked for"):
        split_images(clean_images(100), 19, 512, 0)
