"""The data set of the demonstration: embedded handwritten digits, corrupted while streaming."""

from __future__ import annotations

from ...engine.bundle.manifest import Manifest
from .dataset_request import DatasetRequest
from .domain import CLEAN, Domain, demo, generate_at_severities

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
    domains = generate_at_severities(demo(manifest), request.severities, names, seed, request.frost_textures)
    return "demo (generated corruptions)", domains
