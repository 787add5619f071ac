"""Data sets in miniature, in their official layouts, and what opens them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doubles import draw_picture, vit_manifest
from fozo.engine.bundle.manifest import Manifest
from fozo.engine.errors import InputError
from fozo.eval.datasets.dataset_registry import open_dataset
from fozo.eval.datasets.dataset_request import DatasetRequest
from fozo.eval.datasets.domain import Domain
from numpy.typing import NDArray
from PIL import Image

EXTRA = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
VARIANTS = (
    "imagenetv2-matched-frequency-format-val",
    "imagenetv2-threshold0.7-format-val",
    "imagenetv2-top-images-format-val",
)
TABS = (("\ufeff", 1, 1999), ("", 2, 1000), ("", 3, 1002))
GENERATED = "generated corruptions (not the official ImageNet-C)"


def thousand(**changes: Any) -> Manifest:
    """Return a bundle of 1,000 classes with WNIDs in *descending* order, so position and number differ."""
    wnids = tuple(f"n{1000 + number:08d}" for number in reversed(range(1000)))
    return vit_manifest(16, 16, **{"classes": 1000, "class_ids": wnids, **changes})


def put(path: Path, array: NDArray[np.uint8] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(draw_picture(0, (20, 20)) if array is None else array).save(path)
    return path


def open_named(bundle: Manifest, name: str, *, seed: int = 0, **options: Any) -> tuple[str, list[Domain]]:
    """Open a data set by the fields of its request."""
    return open_dataset(DatasetRequest(name, **options), bundle, seed)


def opened(dataset: str, bundle: Manifest, data: Path | None = None, **options: Any) -> list[Domain]:
    label, domains = open_named(bundle, dataset, data=data, **options)
    assert label == dataset
    return domains


def refused(message: str, dataset: str, bundle: Manifest, data: Path | None = None, **options: Any) -> str:
    with pytest.raises(InputError, match=message) as caught:
        open_named(bundle, dataset, data=data, **options)
    assert "\n" not in str(caught.value)
    assert "://" not in str(caught.value)
    return str(caught.value)


def marked(tree: Path, **changes: Any) -> Path:
    content = {"corruptions": ["gaussian_noise", "fog"], "severities": [3, 5], "size": 224, "images": 4}
    (tree / "generated.json").write_text(json.dumps({**content, **changes}))
    return tree


def labelled(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "labels.txt"
    path.write_text("\n".join(lines) + "\n")
    return path


def variant(folder: Path) -> Path:
    """Numbers as folders, of which `10` comes before `2` as a text."""
    for number in (0, 2, 10, 999):
        put(folder / str(number) / "x.jpeg", np.full((20, 20, 3), number % 256, np.uint8))
    return folder


def cifar(folder: Path, per_severity: int = 4, classes: int = 10) -> Path:
    """Image i of a severity has all values 10 * severity + i; fog is 100 brighter than snow."""
    folder.mkdir()
    numbers = (10 * np.arange(1, 6)[:, None] + np.arange(per_severity)).reshape(-1, 1, 1, 1)
    images = np.broadcast_to(numbers, (5 * per_severity, 32, 32, 3)).astype(np.uint8)
    np.save(folder / "snow.npy", images)
    np.save(folder / "fog.npy", images + 100)
    np.save(folder / "labels.npy", np.tile(np.arange(per_severity) * 7 % classes, 5).astype(np.uint8))
    return folder


def of_cifar(classes: int = 10, **changes: Any) -> Manifest:
    return vit_manifest(48, 48, **{"classes": classes, "class_ids": None, **changes})
