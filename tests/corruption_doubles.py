"""Pictures to corrupt: import with `from corruption_doubles import …`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from fozo.eval.corruptions.corruption_registry import (
    corrupt,
)
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
TEXTURES = Path()  # set by the fixture `textures`


def picture(height: int = 224, width: int = 224) -> Pixels:
    """Smooth colours with edges in them, and some black and some white."""
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([x * 255 / width, y * 255 / height, (x // 16 + y // 16) % 2 * 255.0], axis=2)
    pixels[: height // 8], pixels[-height // 8 :] = 0, 255
    return pixels.astype(np.uint8)


def grey(level: int = 128) -> Pixels:
    return np.full((224, 224, 3), level, dtype=np.uint8)


def apply(image: Pixels, name: str, severity: int, image_id: str = "a", seed: int = 0) -> Pixels:
    return corrupt(image, name, severity, image_id=image_id, seed=seed, textures=TEXTURES)
