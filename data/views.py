"""Views of one image: the ordinary crop, and random crops and flips of the decoded file, as TPT makes them.

A view is a pure function of seed, name of the image, number of the view and recipe. It depends neither on
other views nor on the order or the thread in which they are made. The distribution is that of TPT's official
code (NeurIPS 2022); the random numbers are ours, because theirs come from a global generator.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..engine.bundle.preprocessing import Preprocessing
from ..engine.errors import InputError
from ..engine.interface.view_recipe import SMALLEST_AREA, ViewKind, ViewRecipe
from .augmix import mix_augmentations
from .images import preprocess, read_image

TRIES = 10  # crops that are drawn before the middle is taken
ASPECTS = (3 / 4, 4 / 3)  # least and largest width over height of a crop

Pixels = NDArray[np.uint8]
Box = tuple[int, int, int, int]


def views(
    image: str | os.PathLike[str] | Image.Image | Pixels,
    count: int = 64,
    preprocessing: Preprocessing | None = None,
    *,
    seed: int = 0,
    image_id: str | os.PathLike[str] = "",
    kind: ViewKind = "crops",
    smallest_area: float = SMALLEST_AREA,
) -> Pixels:
    """Return views of one image, uint8 `[count, H, W, 3]`; the first is the ordinary crop.

    The others show a random part of the image, mirrored or not. Equal arguments give equal views, and fewer
    views are the first of more.

    Args:
        image: path of a file, an image of Pillow, or an array uint8 `[H, W, 3]`, RGB.
        count: number of views.
        preprocessing: of the bundle, which says how large a view is and how the ordinary crop is made. An
            array may do without it: then it is the ordinary crop, and all views have its size.
        seed: of the random crops.
        image_id: name of the image. Images of one size and name get the same crops.
        kind: `crops`, or `augmix` for AugMix on top.
        smallest_area: smallest share of the image's area that a crop may show.

    Raises:
        InputError: the image cannot be read, it is a file or an image of Pillow and there is no
            `preprocessing`, or an argument cannot be used.

    >>> import fozo
    >>> fozo.views(np.zeros((32, 32, 3), np.uint8), 8, seed=0).shape
    (8, 32, 32, 3)
    """
    recipe = ViewRecipe(count, kind, smallest_area)
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
        raise InputError(f"a seed of views must be an integer, found {seed!r}")
    if not isinstance(image_id, (str, os.PathLike)):
        raise InputError(f"image_id must be a text or a path, found {image_id!r}")
    if not isinstance(image, np.ndarray) and preprocessing is None:
        raise InputError(
            "views of a file or of an image of Pillow have the size of the model's images; pass "
            "preprocessing=bundle.manifest.preprocessing"
        )
    decoded = _open(image)
    plain = np.asarray(decoded) if preprocessing is None else preprocess(decoded, preprocessing)
    name, size = os.fspath(image_id), plain.shape[:2]
    others = [make_view(decoded, number, size, recipe, seed, name) for number in range(1, count)]
    return np.stack([plain, *others])


def _open(image: Any) -> Image.Image:
    """Return the decoded image, RGB."""
    if isinstance(image, Image.Image):
        return image if image.mode == "RGB" else image.convert("RGB")
    if isinstance(image, (str, os.PathLike)):
        return read_image(image)
    if not isinstance(image, np.ndarray):
        raise InputError(
            f"expected a path, an image of Pillow or an array, found {type(image).__name__}; pass one image"
        )
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise InputError(
            f"expected an image as an array of uint8 and shape [H, W, 3], found {image.dtype} of shape "
            f"{list(image.shape)}; pass one image at a time, as 8-bit RGB"
        )
    return Image.fromarray(image)


def make_view(
    image: Image.Image, number: int, size: tuple[int, ...], recipe: ViewRecipe, seed: int, image_id: str
) -> Pixels:
    """Return one random view, uint8 `[*size, 3]`.

    Args:
        image: the decoded image, RGB.
        number: of the view, from 1; view 0 is the ordinary crop and not made here.
        size: height and width of the view, in pixels.
        recipe: the kind of views.
        seed: of the random crops.
        image_id: name of the image.
    """
    generator = make_view_generator(seed, image_id, number)
    box = draw_box(generator, image.size, recipe.smallest_area)
    crop = image.crop(box).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    if generator.random() < 0.5:
        crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.array(crop) if recipe.kind == "crops" else mix_augmentations(crop, generator)


def make_view_generator(seed: int, image_id: str, number: int) -> np.random.Generator:
    """Return the random generator of one view: PCG64, seeded by a hash of the arguments."""
    key = json.dumps(["view", int(seed), image_id, int(number)]).encode()
    return np.random.Generator(np.random.PCG64(int.from_bytes(hashlib.sha256(key).digest(), "little")))


def draw_box(generator: np.random.Generator, size: tuple[int, int], smallest_area: float) -> Box:
    """Draw the part of an image that a view shows, as (left, top, right, bottom) in pixels.

    Its share of the area is uniform from `smallest_area` to 1, the logarithm of its proportions uniform
    between those of 3:4 and 4:3, and its place uniform. If ten of these do not fit, it is the largest part
    of allowed proportions in the middle.

    Args:
        generator: source of the random numbers.
        size: width and height of the image.
        smallest_area: smallest share of its area.
    """
    width, height = size
    for _ in range(TRIES):
        area = width * height * (smallest_area + (1 - smallest_area) * generator.random())
        low, high = map(math.log, ASPECTS)
        aspect = math.exp(low + (high - low) * generator.random())
        box_width, box_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < box_width <= width and 0 < box_height <= height:
            left = int(generator.integers(width - box_width + 1))
            top = int(generator.integers(height - box_height + 1))
            return left, top, left + box_width, top + box_height
    return _choose_middle(width, height)


def _choose_middle(width: int, height: int) -> Box:
    """Return the largest part of allowed proportions in the middle of an image."""
    box_width = min(width, max(1, round(height * ASPECTS[1])))
    box_height = min(height, max(1, round(width / ASPECTS[0])))
    left, top = (width - box_width) // 2, (height - box_height) // 2
    return left, top, left + box_width, top + box_height
