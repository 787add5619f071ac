"""Moment matching (docs/specification.md §11) against weights that are written out image by image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doubles import apply_head, draw_images, last_features, predict_on, step_on
from fozo.engine.errors import BundleError
from fozo.engine.methods.moments import MomentMatching
from fozo.engine.methods.shift import Shift
from fozo.engine.model import FloatArray, SourceStatistics
from fozo.engine.registry import METHODS
from fozo.engine.streams.adapter import Adapter

StandIn = Callable[..., Any]
SINGLE = 2e-6  # slope and intercept are rounded to float32


def weighted_moments(batches: list[FloatArray], decay: float) -> tuple[FloatArray, FloatArray | None]:
    """Mean and unbiased variance of all images, each with its weight in an exponential average of batches."""
    shares = [
        (decay ** (len(batches) - 1 - index)) * (1 if index == 0 else 1 - decay)
        for index in range(len(batches))
    ]
    weights = [share / len(each) for share, each in zip(shares, batches, strict=True) for _ in each]
    assert sum(weights) == pytest.approx(1)
    rows = [row for batch in batches for row in batch]
    mean = sum(weight * row for weight, row in zip(weights, rows, strict=True))
    if len(rows) == 1:
        return mean, None
    biased = sum(weight * (row - mean) ** 2 for weight, row in zip(weights, rows, strict=True))
    return mean, biased / (1 - sum(weight**2 for weight in weights))


def matched(
    features: FloatArray, mean: FloatArray, variance: FloatArray | None, source: Any, limit: float
) -> FloatArray:
    ratio = np.ones(len(mean)) if variance is None else source.std[-1] ** 2 / (variance + 1e-6)
    ratio = np.array([min(max(each, 1 / limit), limit) for each in ratio])
    return source.mean[-1] + np.sqrt(ratio) * (features - mean)


@pytest.mark.parametrize("sizes", [(1,) * 8, (2,) * 5, (7, 1, 2, 64, 3), (64, 64)])
@pytest.mark.parametrize("update", ["inclusive", "lagged"])
@pytest.mark.parametrize(("decay", "gain", "limit"), [(0.9, 1.0, 3.0), (0.6, 0.5, 1.4), (0.3, 1.3, 1e6)])
def test_against_explicit_weights(
    stand_in: StandIn, sizes: tuple[int, ...], update: Any, decay: float, gain: float, limit: float
) -> None:
    network = stand_in()
    method = MomentMatching(update=update, decay=decay, gain=gain, ratio_limit=limit)
    state, seen = method.bind(network.info).init(0), []
    for batch, size in enumerate(sizes):
        given = draw_images(size, batch)
        features = last_features(network, given)
        known = [*seen, features]
        prediction, state = step_on(network, method, state, given)
        predicted = predict_on(network, method, state, given)
        for found, used in ((prediction, known if update == "inclusive" else seen), (predicted, known)):
            expected = features
            if sum(map(len, used)) > 1:  # the mean of a single image is that image
                moved = matched(features, *weighted_moments(used, decay), network.info.source, limit)
                expected = features + gain * (moved - features)
            np.testing.assert_allclose(
                found.logits, apply_head(network, expected), rtol=SINGLE, atol=20 * SINGLE
            )
        seen = known


def test_defaults() -> None:
    assert METHODS["moments"] == MomentMatching(
        update="inclusive", decay=0.9, gain=1.0, ratio_limit=3.0, variance_floor=1e-6
    )


def with_source(network: Any, mean: FloatArray, std: FloatArray) -> Any:
    """Return the network with other source statistics of its last feature."""
    shape = (network.info.layers, 1)
    source = SourceStatistics(np.tile(mean, shape), np.tile(std, shape), 100)
    network.info = replace(network.info, source=source)
    return network


def test_a_batch_gets_mean_and_deviation_of_the_source(stand_in: StandIn) -> None:
    network = stand_in(classes=3)
    network.weight[:], network.bias[:] = np.eye(3), 0  # logits are the matched features
    method = MomentMatching(ratio_limit=1e9, variance_floor=0.0)
    prediction, _ = step_on(network, method, method.bind(network.info).init(0), draw_images(20))
    source = network.info.source
    np.testing.assert_allclose(prediction.logits.mean(axis=0), source.mean[-1], atol=1e-6)
    np.testing.assert_allclose(prediction.logits.std(axis=0, ddof=1), source.std[-1], rtol=1e-6)


def test_features_that_match_already_stay(stand_in: StandIn) -> None:
    network = stand_in()
    features = last_features(network, draw_images(20))
    with_source(network, features.mean(axis=0), features.std(axis=0, ddof=1))
    method = MomentMatching()
    prediction, _ = step_on(network, method, method.bind(network.info).init(0), draw_images(20))
    np.testing.assert_allclose(prediction.logits, network(draw_images(20)).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("factor", "slope"), [(100, 3**0.5), (0.01, 3**-0.5), (1.5, 1.5), (0.7, 0.7)])
def test_ratio_of_variances_is_clamped_on_both_sides(stand_in: StandIn, factor: float, slope: float) -> None:
    network = stand_in()
    features = last_features(network, draw_images(20))
    mean = features.mean(axis=0)
    with_source(network, mean, factor * features.std(axis=0, ddof=1))
    method = MomentMatching()
    prediction, _ = step_on(network, method, method.bind(network.info).init(0), draw_images(20))
    expected = apply_head(network, mean + slope * (features - mean))
    np.testing.assert_allclose(prediction.logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("update", ["inclusive", "lagged"])
def test_with_a_limit_of_1_it_is_the_shift_to_the_source_mean(stand_in: StandIn, update: Any) -> None:
    network = stand_in()
    left, right = MomentMatching(update=update, ratio_limit=1.0), Shift(update=update)
    states = [left.bind(network.info).init(0), right.bind(network.info).init(0)]
    for batch, size in enumerate((7, 1, 2, 7)):
        given = draw_images(size, batch)
        first, states[0] = step_on(network, left, states[0], given)
        second, states[1] = step_on(network, right, states[1], given)
        np.testing.assert_allclose(first.logits, second.logits, rtol=SINGLE, atol=SINGLE)


def test_without_gain_it_is_the_network(stand_in: StandIn) -> None:
    network, method = stand_in(), MomentMatching(gain=0.0)
    prediction, _ = step_on(network, method, method.bind(network.info).init(0), draw_images(7))
    np.testing.assert_allclose(prediction.logits, network(draw_images(7)).logits, atol=SINGLE)


def test_before_the_first_batch_it_is_the_network_bit_for_bit(stand_in: StandIn) -> None:
    network, method = stand_in(), MomentMatching(update="lagged")
    initial, plain = method.bind(network.info).init(0), network(draw_images(7)).logits
    assert predict_on(network, method, initial, draw_images(7)).logits.tobytes() == plain.tobytes()
    assert step_on(network, method, initial, draw_images(7))[0].logits.tobytes() == plain.tobytes()


def test_after_a_single_image_it_is_the_network_bit_for_bit(stand_in: StandIn) -> None:
    """Matched by its own mean, every first image would get the same prediction."""
    network, method = stand_in(), MomentMatching()
    first, state = step_on(network, method, method.bind(network.info).init(0), draw_images(1))
    assert first.logits.tobytes() == network(draw_images(1)).logits.tobytes()
    images = draw_images(7, 1)
    assert predict_on(network, method, state, images).logits.tobytes() == network(images).logits.tobytes()
    second = step_on(network, method, state, images[:1])[0]
    assert np.abs(second.logits - network(images[:1]).logits).max() > 100 * SINGLE


def test_single_images_lead_to_the_same_variance_as_a_batch(stand_in: StandIn) -> None:
    """No bias in the mean over many streams of single images: 5 of them weigh very unequally."""
    network, method = stand_in(), MomentMatching()
    found = []
    stream = draw_images(3000, 5)
    everything = last_features(network, stream).var(axis=0, ddof=1)
    for first in range(0, 3000, 5):
        state = method.bind(network.info).init(0)
        for image in range(first, first + 5):
            state = step_on(network, method, state, stream[image : image + 1])[1]
        found.append(state.variance / (1 - state.concentration))
    np.testing.assert_allclose(np.mean(found, axis=0), everything, rtol=0.1)


@pytest.mark.parametrize("floor", [0.0, 1e-6])
def test_constant_features(stand_in: StandIn, floor: float) -> None:
    network, method = stand_in(), MomentMatching(variance_floor=floor)
    network.mix[:] = 0
    state = method.bind(network.info).init(0)
    for _ in range(3):
        with np.errstate(all="raise", under="ignore"):
            prediction, state = step_on(network, method, state, draw_images(4))
        expected = apply_head(network, network.info.source.mean[-1:]).repeat(4, axis=0)
        np.testing.assert_allclose(prediction.logits, expected, atol=SINGLE)


def test_channels_without_variance_in_the_source(stand_in: StandIn) -> None:
    network, method = stand_in(), MomentMatching(variance_floor=0.0)
    with_source(network, np.zeros(3), np.zeros(3))
    network.mix[:, -1] = 0
    prediction, _ = step_on(network, method, method.bind(network.info).init(0), draw_images(9))
    features = last_features(network, draw_images(9))
    expected = apply_head(network, 3**-0.5 * (features - features.mean(axis=0)))
    np.testing.assert_allclose(prediction.logits, expected, atol=SINGLE)


def test_one_forward_and_source_statistics(stand_in: StandIn) -> None:
    network, method = stand_in(), MomentMatching()
    state = method.bind(network.info).init(0)
    prediction, state = step_on(network, method, state, draw_images(3))
    assert network.forwards == prediction.forwards == method.forwards == state.step == 1
    network.info = replace(network.info, source=None)
    with pytest.raises(BundleError, match="fozo source"):
        method.bind(network.info).init(0)


def test_with_some_classes(bundle_path: Path, random_images: Any) -> None:
    chosen = [17, 3, 4]
    some = Adapter.open(bundle_path, method="moments", classes=chosen, workers=1)
    whole = Adapter.open(bundle_path, method="moments", workers=1)
    for size in (7, 1, 2):
        given = random_images(size, seed=size)
        np.testing.assert_allclose(
            some.step(given).logits, whole.step(given).logits[:, chosen], rtol=1e-5, atol=1e-5
        )


def test_resumed(bundle_path: Path, random_images: Any, tmp_path: Path) -> None:
    batches = [random_images(size, seed=size) for size in (1, 3, 1, 4)]
    whole, cut = (Adapter.open(bundle_path, method="moments", workers=1) for _ in range(2))
    expected = [whole.step(batch).logits.tobytes() for batch in batches]
    for batch in batches[:2]:
        cut.step(batch)
    cut.save(tmp_path / "state.npz")
    cut.reset()
    assert cut.state.mean is None and cut.state.concentration == 1  # type: ignore[attr-defined]
    cut.load(tmp_path / "state.npz")
    assert [cut.step(batch).logits.tobytes() for batch in batches[2:]] == expected[2:]
