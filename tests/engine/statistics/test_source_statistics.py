"""Source statistics: streamed over batches, refused where they would be uncertain."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundle_doubles import make
from fozo.engine.errors import InputError
from fozo.engine.model import FloatArray, ImageArray, ModelInfo, Outputs
from fozo.engine.runtime.network import Network
from fozo.engine.statistics.feature_statistics import compute_source_statistics


class FakeNetwork:
    """Answers image i of a table with row i: the first two bytes of an image are its index."""

    def __init__(self, features: FloatArray) -> None:
        self.features = features
        layers, width = features.shape[1:]
        self.info = ModelInfo(
            "fake", "fake", layers, 4, 5, 0.1, np.zeros((3, width), np.float32), np.zeros(3, np.float32)
        )

    def __call__(self, images: ImageArray, prompts: FloatArray | None = None) -> Outputs:
        index = images[:, 0, 0, 0].astype(int) * 256 + images[:, 0, 0, 1]
        return Outputs(np.zeros((len(index), 3), np.float32), self.features[index].astype(np.float32))

    def candidates(self, images: ImageArray, tunables: Any) -> list[Outputs]:
        return [self(images, **each) for each in tunables]


def numbered(start: int, stop: int) -> ImageArray:
    images = np.zeros((stop - start, 1, 1, 3), np.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = np.divmod(np.arange(start, stop), 256)
    return images


@pytest.mark.parametrize(
    "sizes", [[300], [64, 64, 64, 64, 44], [1] * 300, [299, 1], [1, 299], [7] * 42 + [6]]
)
def test_streamed_statistics_are_those_of_all_features_at_once(sizes: list[int]) -> None:
    generator = np.random.default_rng(0)
    features = generator.normal(5, 2, (300, 3, 8)) * np.array([1e-3, 1, 50])[:, None] + 100
    features = features.astype(np.float32)
    edges = np.cumsum([0, *sizes])
    batches = (numbered(a, b) for a, b in pairwise(edges.tolist()))
    found = compute_source_statistics(FakeNetwork(features), batches)
    everything = features.astype(np.float64)
    assert found.images == 300
    assert found.mean.dtype == found.std.dtype == np.float32
    np.testing.assert_allclose(found.mean, everything.mean(0), rtol=1e-6)
    np.testing.assert_allclose(found.std, everything.std(0, ddof=1), rtol=1e-6)


@pytest.mark.parametrize("count", [0, 1, 31])
def test_too_few_images(count: int) -> None:
    batches = [numbered(0, count)] if count else []
    with pytest.raises(InputError, match=rf"at least 32 images, found {count}.*uncertain"):
        compute_source_statistics(FakeNetwork(np.zeros((64, 2, 3))), batches)


def test_32_images_are_enough() -> None:
    features = np.random.default_rng(0).normal(size=(32, 2, 3))
    assert compute_source_statistics(FakeNetwork(features), [numbered(0, 32)]).images == 32


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_features_that_are_not_finite(value: float) -> None:
    features = np.zeros((64, 2, 3))
    features[40, 1, 2] = value
    with pytest.raises(InputError, match="non-finite"):
        compute_source_statistics(FakeNetwork(features), [numbered(0, 32), numbered(32, 64)])


def test_equal_images_are_refused() -> None:
    """With images of one colour the deviations are zero, and every method that divides by them fails."""
    features = np.broadcast_to(np.random.default_rng(0).normal(size=(1, 2, 3)), (64, 2, 3))
    with pytest.raises(InputError, match="all 64 clean images with the same features: they are equal"):
        compute_source_statistics(FakeNetwork(features), [numbered(0, 32), numbered(32, 64)])


def test_statistics_of_a_real_graph(tmp_path: Path) -> None:
    bundle = make(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (50, 4, 4, 3), dtype=np.uint8)
    with Network.open(bundle, workers=2, micro_batch=3) as network:
        stored = bundle.with_source(
            "fp32", compute_source_statistics(network, [images[:20], images[20:]]), "noise"
        )
    found = stored.info("fp32").source
    assert found is not None
    means = images.astype(np.float64).mean((1, 2))
    np.testing.assert_allclose(found.mean[1], means.mean(0), rtol=1e-5)
    np.testing.assert_allclose(found.std[0], means.std(0, ddof=1), rtol=1e-4)
