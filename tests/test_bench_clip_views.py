"""Votes from stored embeddings are those of the methods on the images themselves (bench/clip_views.py)."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from doubles import load_script
from fozo.engine.model import ImageArray, Outputs
from fozo.engine.registry import method
from fozo.engine.streams.adapter import Adapter
from fozo.testing import StandInNetwork, draw_images

SCRIPT = Path(__file__).resolve().parent.parent / "bench" / "clip_views.py"
IMAGES = 70  # more than one batch


@pytest.fixture(scope="module")
def clip_views() -> ModuleType:
    """Import the script."""
    return load_script(SCRIPT)


class Similarities:
    """A network like CLIP's: its logits are products of the last feature and the classifier alone."""

    def __init__(self) -> None:
        self.network = StandInNetwork()
        self.info = self.network.info

    def candidates(self, images: ImageArray, tunables: Any) -> list[Outputs]:
        """Return the outputs for each set of tunables."""
        features = [outputs.features for outputs in self.network.candidates(images, tunables)]
        return [Outputs(array[:, -1] @ self.info.head_weight.T, array) for array in features]


def draw_views(views: int) -> ImageArray:
    """Return views that differ, uint8 `[N, V, 4, 4, 3]`."""
    generator = np.random.default_rng(3)
    noise = generator.integers(-90, 91, (IMAGES, views, 4, 4, 3))
    noise[:, 0] = 0
    return np.clip(draw_images(IMAGES)[:, None].astype(np.int64) + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("options", [{}, {"views": 16}, {"block": 8}, {"skip": 0.9, "kept": 0.1}])
def test_votes_are_those_of_the_method(clip_views: ModuleType, options: dict[str, float]) -> None:
    network, zero = Similarities(), method("zero", **options)
    images = draw_views(clip_views.VIEWS)
    flat = images.reshape(-1, *images.shape[2:])
    embeddings = network.network(flat).features[:, -1].reshape(*images.shape[:2], -1)
    experiment = SimpleNamespace(
        adapters={"zero": Adapter(network, zero)},
        methods={"zero": zero},
        network=network,
        protocol=SimpleNamespace(seeds=(2000,)),
    )
    targets = np.arange(IMAGES) % network.info.classes
    result = clip_views.vote(experiment, "zero", embeddings, targets)
    adapter, right, forwards = Adapter(network, zero), [], 0.0
    for start in range(0, IMAGES, clip_views.BATCH):
        rows = slice(start, start + clip_views.BATCH)
        prediction = adapter.step(images[rows])
        right.append(prediction.logits.argmax(1) == targets[rows])
        forwards += prediction.forwards
    assert np.array_equal(result.right.array(), np.concatenate(right))
    assert result.tally.images == IMAGES and result.forwards == pytest.approx(forwards)
