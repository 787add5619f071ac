"""Statistics, entropy, discrepancy and the loss: the vectors of docs/specification.md §12.1, and §6.3."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np
import pytest
from doubles import step_on
from fozo.engine.errors import InputError
from fozo.engine.methods.fozo import Fozo, FozoState
from fozo.engine.model import FloatArray, ImageArray, ModelInfo, Outputs, SourceStatistics
from fozo.engine.statistics.activation_shift import compute_logit_offset, compute_shift, compute_shift_offset
from fozo.engine.statistics.feature_statistics import MIN_IMAGES, Moments, compute_source_statistics
from fozo.engine.statistics.objective import (
    DiscrepancyNorm,
    compute_discrepancy,
    compute_outputs_loss,
    entropy,
    log_softmax,
    softmax,
)

TOLERANCE = 1e-8

# TV-1
FEATURES = np.sin(
    1 + np.arange(4)[:, None, None] + 0.5 * np.arange(2)[None, :, None] + 0.25 * np.arange(3)[None, None, :]
)
SOURCE = SourceStatistics(
    0.1 * np.arange(6).reshape(2, 3), 0.5 + 0.05 * np.arange(6).reshape(2, 3), images=100
)
WEIGHT = np.cos(0.3 * np.arange(5)[:, None] + 0.7 * np.arange(3)[None, :])
BIAS = 0.1 * np.arange(5)
LOGITS = FEATURES[:, 1] @ WEIGHT.T + BIAS
MEAN = [0.2837714811, 0.1809683309, 0.0669134463, 0.0669134463, -0.0513017922, -0.1663273338]
STD = [0.7757695294, 0.8539484174, 0.8970079008, 0.8970079008, 0.8997470719, 0.8618513640]
SHIFT = [0.2330865537, 0.4513017922, 0.6663273338]
ENTROPY_SUM = 5.488615853010898


def close(found: Any, expected: Any, tolerance: float = TOLERANCE) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


@dataclass
class Constant:
    """A network that answers every forward with the features of TV-1, in float64."""

    info: ModelInfo
    features: FloatArray

    def __call__(self, images: ImageArray, prompts: FloatArray | None = None) -> Outputs:
        return Outputs(self.features[:, -1] @ WEIGHT.T + BIAS, self.features)

    def candidates(self, images: ImageArray, tunables: Any) -> list[Outputs]:
        return [self(images, **each) for each in tunables]


def constant(features: FloatArray = FEATURES) -> Constant:
    return Constant(ModelInfo("tv1", "tv1", 2, 3, 5, 0.1, WEIGHT, BIAS, SOURCE), features)


def fozo_loss(method: Fozo, features: FloatArray = FEATURES) -> float:
    """Return the loss that FOZO reports when the shift is that of TV-1: source mean minus batch mean."""
    network = constant(features)
    initial = method.bind(network.info).init(0)
    schedule = initial.schedule._replace(loss_average=5.0)
    state: FozoState = replace(initial, center=FEATURES[:, -1].mean(axis=0), schedule=schedule)
    loss = step_on(network, method, state, np.zeros((len(features), 2, 2, 3), np.uint8))[0].loss
    assert loss is not None
    return loss


def given(mean: FloatArray, std: FloatArray) -> Moments:
    """Moments of this mean and unbiased standard deviation."""
    return Moments(2, mean, np.square(std))


def test_mean_and_std() -> None:
    statistics = Moments.of(FEATURES)
    assert statistics.std is not None
    assert statistics.mean.shape == statistics.std.shape == (2, 3)
    close(statistics.mean.ravel(), MEAN, 1e-10)
    close(statistics.std.ravel(), STD, 1e-10)


def test_std_is_unbiased() -> None:
    statistics = Moments.of(FEATURES)
    close(statistics.std, FEATURES.std(axis=0, ddof=1), 1e-14)
    biased = given(statistics.mean, FEATURES.std(axis=0, ddof=0))
    close(compute_discrepancy(biased, SOURCE), 0.9258843709)  # what TV-1 gives for the wrong denominator
    assert abs(compute_discrepancy(statistics, SOURCE) - 0.9258843709) > 0.2


@pytest.mark.parametrize(
    ("norm", "expected"),
    [
        ("squared", 1.1768586100505725),
        ("mean_squared", 0.19614310167509538),
        ("l2_per_layer", 2.0049566971008033),
        ("l2_groups", 2.0049566971008033),  # the same for two layers, one per half
    ],
)
def test_discrepancy(norm: DiscrepancyNorm, expected: float) -> None:
    close(compute_discrepancy(Moments.of(FEATURES), SOURCE, norm), expected, 1e-12)


def test_groups_are_the_two_halves_of_the_layers() -> None:
    generator = np.random.default_rng(0)
    for layers in (1, 2, 3, 4, 5, 12):
        features = generator.normal(size=(6, layers, 4))
        source = SourceStatistics(
            generator.normal(size=(layers, 4)), generator.uniform(size=(layers, 4)), images=9
        )
        parts = [(features.mean(0) - source.mean), (features.std(0, ddof=1) - source.std)]
        half = layers // 2
        expected = sum(np.linalg.norm(part[:half]) + np.linalg.norm(part[half:]) for part in parts)
        close(compute_discrepancy(Moments.of(features), source, "l2_groups"), expected, 1e-12)
        squared = sum(np.square(part).sum() for part in parts)
        close(compute_discrepancy(Moments.of(features), source, "squared"), squared, 1e-12)


@pytest.mark.parametrize("norm", get_args(DiscrepancyNorm))
def test_discrepancy_is_zero_at_the_source_and_positive_elsewhere(norm: DiscrepancyNorm) -> None:
    assert compute_discrepancy(given(SOURCE.mean, SOURCE.std), SOURCE, norm) == 0
    assert compute_discrepancy(given(SOURCE.mean + 0.1, SOURCE.std), SOURCE, norm) > 0
    assert compute_discrepancy(given(SOURCE.mean, SOURCE.std - 0.1), SOURCE, norm) > 0


@pytest.mark.parametrize("norm", get_args(DiscrepancyNorm))
def test_one_image_has_no_std_and_only_its_mean_counts(norm: DiscrepancyNorm) -> None:
    alone = Moments.of(FEATURES[:1])
    assert alone.std is None
    close(alone.mean, FEATURES[0], 0)
    same_std = given(FEATURES[0], SOURCE.std)
    assert compute_discrepancy(alone, SOURCE, norm) == compute_discrepancy(same_std, SOURCE, norm)


def test_entropy() -> None:
    close(entropy(LOGITS), [1.3627252802, 1.5910900760, 1.3851326433, 1.1496678534], 1e-10)
    close(entropy(LOGITS).sum(), ENTROPY_SUM, 1e-12)
    close(entropy(LOGITS).mean(), 1.3721539632527244, 1e-12)


def test_entropy_bounds_and_extremes() -> None:
    close(entropy(np.zeros((2, 7))), np.log(7), 1e-15)
    certain = np.array([[1e4, 0, -1e4], [-3e38, 3e38, 0]], np.float32)
    assert np.array_equal(entropy(certain), [0, 0])
    assert np.isfinite(log_softmax(certain)).all()
    close(softmax(certain), [[1, 0, 0], [0, 1, 0]], 0)
    close(entropy(LOGITS + 1000), entropy(LOGITS), 1e-10)


def test_everything_is_float64_whatever_comes_in() -> None:
    logits, features = LOGITS.astype(np.float32), FEATURES.astype(np.float32)
    assert entropy(logits).dtype == softmax(logits).dtype == log_softmax(logits).dtype == np.float64
    statistics = Moments.of(features)
    assert statistics.std is not None
    assert statistics.mean.dtype == statistics.std.dtype == np.float64
    close(softmax(logits).sum(axis=1), 1, 1e-15)


def test_losses_of_the_family() -> None:
    distance = compute_discrepancy(Moments.of(FEATURES), SOURCE)
    close(0.4 * distance * 4 / 64 + entropy(LOGITS).sum(), 5.518037318262162, 1e-12)  # FOA
    outputs = Outputs(LOGITS, FEATURES)
    close(compute_outputs_loss(outputs, SOURCE, (3, 3), 0.4, "sum"), 5.518037318262162, 1e-12)
    close(compute_outputs_loss(outputs, SOURCE, (), 0.4, "per_image"), 16 * 5.518037318262162, 1e-11)
    mean = compute_discrepancy(Moments.of(FEATURES), SOURCE, "mean_squared")
    close(30 * mean + entropy(LOGITS).mean(), 7.2564470135055865, 1e-12)  # ZOA


def test_shift_vector_and_the_logits_it_moves() -> None:
    center = FEATURES[:, -1].mean(axis=0)
    shift = compute_shift(SOURCE.mean[-1], center, 1.0)
    assert shift is not None
    close(shift, SHIFT, 1e-10)
    moved = (FEATURES[:, 1] + shift) @ WEIGHT.T + BIAS
    close(LOGITS + compute_logit_offset(WEIGHT, shift), moved, 1e-7)  # the shift is rounded to float32


def test_the_offset_of_a_named_target() -> None:
    center = FEATURES[:, -1].mean(axis=0)
    offsets = {
        target: compute_shift_offset(WEIGHT, SOURCE, center, target, 0.5)
        for target in ("source_mean", "official_sum", "origin", "none")
    }
    close(offsets["source_mean"], 0.5 * WEIGHT @ SHIFT, 1e-7)
    assert np.array_equal(offsets["official_sum"], offsets["source_mean"])
    close(offsets["origin"], -0.5 * WEIGHT @ FEATURES[:, 1].sum(axis=0) / 4, 1e-7)
    assert not offsets["none"].any()
    assert not compute_shift_offset(WEIGHT, SOURCE, None, "source_mean").any()


def test_fozo_loss_sees_the_shift() -> None:
    close(fozo_loss(Fozo(shift="source_mean")), 5.568916374041027, 1e-7)  # the shift is rounded to float32


def test_fozo_loss_on_unshifted_logits_is_that_of_foa() -> None:
    close(fozo_loss(Fozo(shift="source_mean", entropy_on="unshifted")), 5.518037318262162, 1e-12)


@pytest.mark.parametrize("weight", [0.0, 0.2, 0.4, 3.0])
@pytest.mark.parametrize("norm", get_args(DiscrepancyNorm))
def test_fozo_loss_weighs_the_discrepancy_and_the_batch(norm: DiscrepancyNorm, weight: float) -> None:
    method = Fozo(shift="none", loss_norm=norm, discrepancy_weight=weight)
    distance = compute_discrepancy(Moments.of(FEATURES), SOURCE, norm)
    close(fozo_loss(method), weight * distance * 4 / 64 + ENTROPY_SUM, 1e-12)
    close(fozo_loss(replace(method, loss_scale="per_image")), weight * distance + 64 * ENTROPY_SUM / 4, 1e-10)


def test_duplicated_batch() -> None:
    """§12.3: each image twice leaves the mean, and changes the std through its denominator alone."""
    twice = FEATURES.repeat(2, axis=0)
    once, double = Moments.of(FEATURES), Moments.of(twice)
    assert once.std is not None and double.std is not None
    close(double.mean, once.mean, 1e-15)
    close(double.std, once.std * np.sqrt(2 * 3 / 7), 1e-15)
    same = given(once.mean, once.std * np.sqrt(6 / 7))
    expected = 0.4 * compute_discrepancy(same, SOURCE) * 8 / 64 + 2 * ENTROPY_SUM
    close(fozo_loss(Fozo(shift="none"), twice), expected, 1e-12)
    per_image = Fozo(shift="none", loss_scale="per_image")
    close(fozo_loss(per_image, twice), 0.4 * compute_discrepancy(same, SOURCE) + 16 * ENTROPY_SUM, 1e-10)


def test_moments_over_any_split_are_the_statistics_of_the_whole() -> None:
    generator = np.random.default_rng(3)
    values = generator.normal(1000, 1, (50, 2, 3))  # a large mean, where naive sums of squares cancel
    for sizes in ((50,), (1,) * 50, (1, 2, 47), (20, 20, 10)):
        moments: Moments | None = None
        for part in np.split(values, np.cumsum(sizes)[:-1]):
            moments = Moments.of(part).merge(moments)
        assert moments is not None and moments.std is not None
        assert moments.count == 50
        close(moments.mean, values.mean(axis=0), 1e-10)
        close(moments.std, values.std(axis=0, ddof=1), 1e-10)


def test_source_statistics(stand_in: Callable[..., Any]) -> None:
    network = stand_in()
    images = np.random.default_rng(1).integers(0, 256, (41, 2, 2, 3), dtype=np.uint8)
    features = network(images).features
    found = compute_source_statistics(network, [images[:30], images[30:31], images[31:]])
    assert (found.images, found.mean.dtype, found.std.dtype) == (41, np.float32, np.float32)
    close(found.mean, features.mean(axis=0), 1e-7)
    close(found.std, features.std(axis=0, ddof=1), 1e-7)


def test_source_statistics_need_enough_images(stand_in: Callable[..., Any]) -> None:
    images = np.zeros((MIN_IMAGES - 1, 2, 2, 3), np.uint8)
    with pytest.raises(InputError, match=f"{MIN_IMAGES}.*found {MIN_IMAGES - 1}"):
        compute_source_statistics(stand_in(), [images])
    with pytest.raises(InputError, match="found 0"):
        compute_source_statistics(stand_in(), [])


def test_source_statistics_refuse_a_broken_network() -> None:
    broken = constant(np.full((40, 2, 3), np.nan))
    with pytest.raises(InputError, match="non-finite"):
        compute_source_statistics(broken, [np.zeros((40, 2, 2, 3), np.uint8)])
