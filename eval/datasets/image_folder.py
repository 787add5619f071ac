"""Any images in class folders."""

from __future__ import annotations

from ...engine.bundle.manifest import Manifest
from .dataset_request import DatasetRequest
from .domain import Domain, imagefolder


def open_image_folder(request: DatasetRequest, manifest: Manifest, seed: int) -> tuple[str, list[Domain]]:
    """Open the images of a folder as one domain; the seed has no effect."""
    return request.name, [imagefolder(request.folder, manifest, request.name)]
