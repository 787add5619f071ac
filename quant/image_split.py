"""Split of clean images into those for calibration and those that judge the result."""

from __future__ import annotations

import numpy as np

from ..data.source import SourceImages
from ..engine.errors import InputError
from .calibration import CALIBRATION_BATCH, CASES


def split_images(
    images: SourceImages, calibration: int, held_out: int, seed: int
) -> tuple[SourceImages, SourceImages]:
    """Split images at random, with a seed, into those to calibrate with and those to judge the result by.

    Where there are not enough for both, half of them are for calibration.

    Raises:
        InputError: there are too few to calibrate with.
    """
    needed = CALIBRATION_BATCH * len(CASES)
    enough = images.count >= calibration + held_out
    count = calibration if enough else min(calibration, images.count // 2)
    if calibration < needed:
        raise InputError(
            f"calibration takes at least {needed} images, {calibration} were asked for; "
            "increase --calibration-images"
        )
    if count < needed:
        raise InputError(
            f"quantisation needs at least {needed} images for calibration and as many to judge the result "
            f"by, found {images.count} in all; give it more clean images"
        )
    order = np.random.default_rng(seed).permutation(images.count)
    return images.select(np.sort(order[:count])), images.select(np.sort(order[count:][:held_out]))
