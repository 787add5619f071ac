"""Features of training images: which crops are encoded, and how often."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fozo.data.image_reader import ImageReader
from fozo.data.training_crops import make_training_crop
from fozo.engine.bundle.preprocessing import Preprocessing
from fozo.engine.runtime.network import Network
from fozo.eval.datasets.open_split import open_split_data
from fozo.eval.tuning.image_features import CropFeatures
from fozo.eval.tuning.training_images import TrainingImages
from PIL import Image
from tune_doubles import make_colours, make_tuning_bundle

PREPROCESSING = Preprocessing((4, 4), 5, "bilinear")


@pytest.fixture
def network(tmp_path: Path) -> Network:
    return Network.open(make_tuning_bundle(tmp_path), workers=1)


def make_features(
    network: Network, folder: Path, crops: int | None, epochs: int
) -> tuple[CropFeatures, list[int]]:
    data = open_split_data(folder if folder.exists() else make_colours(folder))
    counts: list[int] = []
    images = TrainingImages(data, data.train[:5], PREPROCESSING, ImageReader(), crops, 7)
    return CropFeatures(network, images, epochs, counts.append), counts


ALL = np.arange(5)


def test_the_ordinary_crop_is_encoded_once(network: Network, tmp_path: Path) -> None:
    features, counts = make_features(network, tmp_path / "data", crops=0, epochs=3)
    first = features.get(0, ALL[:2])
    assert features.repeats and (first.shape, first.dtype) == ((2, 3), np.float32)
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(features.get(2, ALL)[:2], first)
    assert sum(counts) == 5


def test_random_crops_are_used_in_turn(network: Network, tmp_path: Path) -> None:
    features, counts = make_features(network, tmp_path / "data", crops=2, epochs=5)
    epochs = [features.get(epoch, ALL) for epoch in range(5)]
    assert sum(counts) == 10
    np.testing.assert_array_equal(epochs[2], epochs[0])
    np.testing.assert_array_equal(epochs[3], epochs[1])
    assert not np.array_equal(epochs[0], epochs[1])


@pytest.mark.parametrize("crops", [3, None])
def test_fresh_crops_are_encoded_batch_by_batch(network: Network, crops: int | None, tmp_path: Path) -> None:
    features, counts = make_features(network, tmp_path / "data", crops=crops, epochs=3)
    assert not features.repeats
    batches = [features.get(epoch, rows) for epoch, rows in ((0, ALL[:3]), (0, ALL[:3]), (0, ALL[3:]))]
    assert sum(counts) == 5 and batches[0] is batches[1]  # the latest batch is remembered
    whole = features.get(0, ALL)
    np.testing.assert_array_equal(whole, np.concatenate(batches[1:]))
    assert not np.array_equal(features.get(1, ALL), whole)
    again, _ = make_features(network, tmp_path / "data", crops=5, epochs=9)
    np.testing.assert_array_equal(again.get(2, ALL), features.get(2, ALL))


def test_training_crops_are_parts_of_the_image_enlarged_with_a_bicubic_filter() -> None:
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = np.arange(60) * 4, np.arange(40)[:, None] * 6
    image = Image.fromarray(pixels)
    crops = [make_training_crop(image, (8, 10), 1, "a", number) for number in range(40)]
    assert {crop.shape for crop in crops} == {(8, 10, 3)}
    flipped = [crop[4, 0, 0] > crop[4, -1, 0] for crop in crops]
    assert 8 < sum(flipped) < 32
    for crop in crops:  # colours run evenly, as they do in every part of the image
        steps = np.diff(crop[4, 1:-1, 0].astype(int))
        assert (steps >= 0).all() or (steps <= 0).all()
    np.testing.assert_array_equal(crops[3], make_training_crop(image, (8, 10), 1, "a", 3))
    for other in (
        make_training_crop(image, (8, 10), 2, "a", 3),
        make_training_crop(image, (8, 10), 1, "b", 3),
    ):
        assert not np.array_equal(crops[3], other)
