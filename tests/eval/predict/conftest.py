"""Fixtures of the tests of predictions."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fozo
import numpy as np
import pytest
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.model import ImageArray
from fozo.engine.registry import parse_method
from fozo.engine.runtime.network import Network
from predict_doubles import (
    CLASSES,
    DEFAULT,
    Stepped,
)


@pytest.fixture(scope="module")
def network(bundle_path: Path) -> Iterator[Network]:
    with Network.open(bundle_path, workers=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def stepped(network: Network) -> Stepped:
    """`stepped(images, batch_size, method)`: probabilities of all images by `Adapter.step` alone."""

    def step(images: ImageArray, batch_size: int, method: str = DEFAULT) -> tuple[Any, fozo.Adapter]:
        adapter = fozo.Adapter(network, parse_method(method)[1])
        batches = [images[start : start + batch_size] for start in range(0, len(images), batch_size)]
        return np.concatenate([adapter.step(batch).probabilities for batch in batches]), adapter

    return step


@pytest.fixture(scope="module")
def named_bundle(bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the bundle with identifiers and names of its classes."""
    copy = tmp_path_factory.mktemp("named") / "bundle"
    shutil.copytree(bundle_path, copy)
    raw = json.loads((copy / "bundle.json").read_bytes())
    raw["class_ids"] = [f"n{1000 + index}" for index in range(CLASSES)]
    raw["class_names"] = [f'the "{index}", so called' for index in range(CLASSES)]
    (copy / "bundle.json").write_text(json.dumps(raw))
    return copy


@pytest.fixture
def manifest(bundle_path: Path) -> Any:
    return Bundle.open(bundle_path).manifest


@pytest.fixture
def adapter(network: Network) -> fozo.Adapter:
    return fozo.Adapter(network, parse_method(DEFAULT)[1])
