"""Folders that several tests of data sets read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dataset_doubles import (
    put,
)
from doubles import WNIDS, draw_picture


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Save a miniature ImageNet-C: two corruptions, two severities, two of the four classes."""
    root = tmp_path / "imagenet-c"
    for c, name in enumerate(("gaussian_noise", "fog")):
        for severity in (3, 5):
            for k, wnid in enumerate((WNIDS[3], WNIDS[1])):
                for i in range(2):
                    image = draw_picture(c * 100 + severity * 10 + k * 2 + i)
                    put(root / name / str(severity) / wnid / f"ILSVRC2012_val_{i:08d}.png", image)
    return root


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """Three validation images side by side; image i is filled with the number i."""
    for number in (1, 2, 3):
        image = np.full((20, 20, 3), number, np.uint8)
        put(tmp_path / "val" / f"ILSVRC2012_val_{number:08d}.png", image)
    return tmp_path / "val"
