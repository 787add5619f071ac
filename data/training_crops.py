"""Random crops of training images, as CoOp and its successors train with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .views import draw_box, make_view_generator

SMALLEST_AREA = 0.08


def make_training_crop(
    image: Image.Image, size: tuple[int, int], seed: int, image_id: str, number: int
) -> NDArray[np.uint8]:
    """Return a random part of an image, mirrored or not, uint8 `[*size, 3]`.

    The part is drawn as a view's (`fozo.views`), and enlarged with a bicubic filter, as in CoOp's
    configurations; views for testing are bilinear. It is a pure function of its arguments.

    Args:
        image: the decoded image, RGB.
        size: height and width of the result, in pixels.
        seed: of the random numbers.
        image_id: name of the image.
        number: of the crop, from 0.
    """
    generator = make_view_generator(seed, f"training/{image_id}", number)
    box = draw_box(generator, image.size, SMALLEST_AREA)
    crop = image.crop(box).resize((size[1], size[0]), Image.Resampling.BICUBIC)
    if generator.random() < 0.5:
        crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.array(crop)
