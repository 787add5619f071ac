"""Image corruptions of ImageNet-C, from its published parameters, with NumPy and Pillow alone.

Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations",
ICLR 2019. The parameters are those for 224x224 pixels. At another size every length in pixels (the radius of
a blur, the reach of a distortion) is multiplied by min(H, W) / 224, so that the picture looks the same. The
layers of snow, frost, fog and spatter are made at 224 pixels and resized. Other parameters (noise, contrast,
JPEG quality, and the ratio of pixelate) do not depend on the size.

Results are rounded down to 8 bits as in the paper's code. They differ from the files of the benchmark: the
random numbers are others, and the published images were compressed as JPEG once more. Report them as
"ImageNet-C style".
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np

from ...engine.errors import InputError
from . import blur, digital, noise, spatter, weather
from .pixels import Pixels

SEVERITIES = (1, 2, 3, 4, 5)
FROST = "frost"

# All but frost, which needs textures. The last four are the paper's extra ones.
CORRUPTIONS: Mapping[str, Callable[[Pixels, int, np.random.Generator], Pixels]] = MappingProxyType(
    {
        "gaussian_noise": noise.gaussian_noise,
        "shot_noise": noise.shot_noise,
        "impulse_noise": noise.impulse_noise,
        "defocus_blur": blur.defocus_blur,
        "glass_blur": blur.glass_blur,
        "motion_blur": blur.motion_blur,
        "zoom_blur": blur.zoom_blur,
        "snow": weather.snow,
        "fog": weather.fog,
        "brightness": digital.brightness,
        "contrast": digital.contrast,
        "elastic_transform": digital.elastic_transform,
        "pixelate": digital.pixelate,
        "jpeg_compression": digital.jpeg_compression,
        "speckle_noise": noise.speckle_noise,
        "gaussian_blur": blur.gaussian_blur,
        "spatter": spatter.spatter,
        "saturate": digital.saturate,
    }
)
NAMES = (*CORRUPTIONS, FROST)


def corrupt(
    image: Pixels, name: str, severity: int, *, image_id: str, seed: int, textures: Path | None = None
) -> Pixels:
    """Corrupt one image; equal arguments give equal results in any order, process or thread.

    Args:
        image: uint8 RGB of shape [H, W, 3]; not changed.
        name: one of `NAMES`.
        severity: 1 (mild) to 5 (strong).
        image_id: text that identifies the image in its data set, such as its relative path.
        seed: seed of the corrupted data set.
        textures: folder with the textures of frost; other corruptions need none.

    Returns:
        A new uint8 array of shape [H, W, 3].

    Raises:
        InputError: the name or the severity does not exist, the image is not uint8 [H, W, 3], or a texture
            of frost is missing.
    """
    if name not in NAMES:
        raise InputError(
            f"expected a corruption out of {', '.join(NAMES)}, found {name!r}; pick one of these"
        )
    if severity not in SEVERITIES:
        raise InputError(f"expected a severity out of 1, 2, 3, 4, 5, found {severity!r}; pick one of these")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise InputError(
            f"expected a uint8 image of shape [H, W, 3], found {image.dtype} of shape {image.shape} "
            f"for {image_id!r}; convert it to 8-bit RGB first"
        )
    rng = make_generator(name, severity, image_id, seed)
    if name == FROST:
        return weather.frost(image, severity, rng, weather.load_frost_textures(textures))
    return CORRUPTIONS[name](image, severity, rng)


def make_generator(name: str, severity: int, image_id: str, seed: int) -> np.random.Generator:
    """Return the random generator of one corrupted image: PCG64, seeded by a hash of the arguments."""
    key = json.dumps([int(seed), name, int(severity), image_id]).encode()
    return np.random.Generator(np.random.PCG64(int.from_bytes(hashlib.sha256(key).digest(), "little")))
