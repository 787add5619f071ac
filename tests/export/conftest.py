"""Models that several files share: a small residual network, and weights of a small transformer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from export_doubles import SMALL
from fozo.engine.runtime.network import Network
from resnet_doubles import make_resnet, open_network
from vit_doubles import randomise

torch = pytest.importorskip("torch", reason="export needs PyTorch")
timm = pytest.importorskip("timm", reason="export needs timm")


@pytest.fixture(scope="module")
def model() -> Any:
    return make_resnet()


@pytest.fixture(scope="module")
def shared(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """Open the network of `model` with two workers."""
    with open_network(model, tmp_path_factory.mktemp("shared"), workers=2, micro_batch=2) as opened:
        yield opened


@pytest.fixture(scope="module")
def small_weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the state of `test_vit` (width 64, 1000 classes) at 32 pixels with random parameters."""
    state: dict[str, Any] = randomise(timm.create_model("test_vit", img_size=SMALL)).state_dict()
    return state
