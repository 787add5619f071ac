"""The data set of the demonstration: handwritten digits that ship with fozo, corrupted while streaming."""

from __future__ import annotations

from ...data.demo import DEMO_CLASSES, demo_images
from ...engine.bundle.manifest import Manifest
from ...engine.errors import InputError
from .corruption_names import CLEAN
from .dataset_request import DatasetRequest
from .domain import Domain, make_array_domain
from .generated_domains import generate_at_severities

DEMO_CORRUPTIONS = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "contrast",
    "pixelate",
    "jpeg_compression",
    CLEAN,
)


def open_digits(request: DatasetRequest, manifest: Manifest, seed: int) -> tuple[str, list[Domain]]:
    """Open the digits with generated corruptions, by default those of `DEMO_CORRUPTIONS`."""
    names = DEMO_CORRUPTIONS if request.corruptions is None else request.corruptions
    domains = generate_at_severities(
        load_demo_domain(manifest), request.severities, names, seed, request.frost_textures
    )
    return "demo (generated corruptions)", domains


def load_demo_domain(manifest: Manifest) -> Domain:
    """Return the demonstration's clean test images, handwritten digits.

    Raises:
        InputError: the bundle is not of the demonstration's model, or the file of the digits is damaged.
    """
    size = manifest.preprocessing.size
    if manifest.class_ids != DEMO_CLASSES or size != (32, 32):
        raise InputError(
            f"the demo data set needs the demo model, this bundle is {manifest.model}; get one with: "
            "fozo demo"
        )
    images, labels = demo_images("test")
    return make_array_domain(CLEAN, images, labels, [f"digit-{index:04d}" for index in range(len(labels))])
