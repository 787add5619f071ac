"""Textures of frost for the tests of the corruptions."""

from __future__ import annotations

from pathlib import Path

import corruption_doubles
import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session", autouse=True)
def textures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save stand-ins for frost's textures, larger and smaller than the images; `apply` uses them."""
    folder = tmp_path_factory.mktemp("frost")
    for number, (height, width) in enumerate([(300, 400), (224, 224), (100, 500), (230, 300), (315, 560)], 1):
        noise = np.random.default_rng(number).integers(0, 256, (height // 10, width // 10, 3), dtype=np.uint8)
        picture = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
        picture.save(folder / f"frost{number}.{'png' if number < 4 else 'jpg'}")
    corruption_doubles.TEXTURES = folder
    return folder
