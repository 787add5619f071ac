"""PIZO: steps, bookkeeping, and what it tunes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doubles import predict_on, step_on
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.errors import BundleError, InputError
from fozo.engine.methods.momentum_descent import apply_update
from fozo.engine.model import FloatArray, ImageArray, Outputs, SourceStatistics
from fozo.engine.registry import Pizo, method
from fozo.engine.runtime.network import Network
from fozo.engine.statistics.feature_statistics import Moments
from fozo.engine.statistics.objective import (
    compute_discrepancy_slopes,
    compute_diversity_slopes,
    entropy,
)
from fozo.engine.streams.adapter import Adapter
from pizo_doubles import BATCH, NARROW

MakeImages = Callable[..., ImageArray]


@pytest.fixture(scope="module")
def network(
    tmp_path_factory: pytest.TempPathFactory, make_bundle: Callable[..., Bundle]
) -> Iterator[Network]:
    """So narrow (64 tuned values) that some thousand draws are enough."""
    path = make_bundle(tmp_path_factory.mktemp("narrow") / "bundle", width=16, depth=2, classes=6).path
    with Network.open(path, workers=1) as opened:
        yield opened


def test_the_rate_is_the_length_of_the_first_step(network: Network, random_images: MakeImages) -> None:
    configured = Pizo(**{**NARROW, "rate": 0.02}, update_images=BATCH)  # type: ignore[arg-type]
    _, state = step_on(network, configured, configured.bind(network.info).init(0), random_images(BATCH))
    assert np.sqrt(np.mean(np.square(state.norms))) == pytest.approx(0.02, rel=1e-5)
    assert (state.updates, state.images) == (1, 0)


def test_momentum_is_corrected_and_averages(network: Network, random_images: MakeImages) -> None:
    """Two updates by hand from the two gradients."""
    configured = Pizo(**NARROW, update_images=BATCH)  # type: ignore[arg-type]
    held = replace(configured, update_images=10**6)
    first = configured.bind(network.info).init(0)
    batches = [random_images(BATCH, seed=seed) for seed in (0, 1)]
    gradients, expected, state = [], np.zeros_like(first.norms, np.float64), first
    for index, images in enumerate(batches):
        gradients.append(step_on(network, held, state, images)[1].norms_gradient)
        weights = [0.1 * 0.9 ** (index - i) for i in range(index + 1)]
        average = sum(w * g for w, g in zip(weights, gradients, strict=True)) / sum(weights)
        expected -= 0.005 * average / np.sqrt(np.mean(np.square(gradients[-1])))
        _, state = step_on(network, configured, state, images)
        np.testing.assert_allclose(state.norms, expected, rtol=1e-5, atol=1e-8)


def test_no_step_is_longer_than_the_rate(network: Network) -> None:
    """Not even where gradients become small and the running one is still that of before."""
    configured = Pizo(**NARROW)  # type: ignore[arg-type]
    state, generator, lengths = configured.bind(network.info).init(0), np.random.default_rng(0), []
    for scale in (*[1.0] * 20, *[1e-9] * 20):
        gradient = scale * generator.standard_normal(state.norms.shape)
        following = apply_update(
            replace(state, norms_gradient=gradient),
            {"norms": configured.rate},
            configured.momentum,
            configured.anchor,
        )
        lengths.append(float(np.sqrt(np.mean(np.square(following.norms - state.norms)))))
        state = following
    assert max(lengths) <= 0.005 * (1 + 1e-5)
    assert lengths[20] == pytest.approx(0.005, rel=1e-3)


@pytest.mark.parametrize(("ratio", "share"), [(1.5, 0.0), (2.0, 0.0), (3.0, 0.5), (4.0, 1.0), (20.0, 1.0)])
def test_near_the_source_nothing_is_done(
    network: Network, random_images: MakeImages, ratio: float, share: float
) -> None:
    """With the source so far from the features: shift and step are that share of what they would be."""
    images = random_images(64)
    configured = Pizo(first_block=1, frozen_last_blocks=0, anchor=0.0)
    features, logits = middle(configured, network, images)
    moments = Moments.of(features)
    assert moments.std is not None
    std = moments.std.astype(np.float32)
    chance = (std.astype(np.float64) ** 2).sum() * (1 / 64 + 1 / 512 + 1 / 126 + 1 / 1022)
    apart = np.sqrt(ratio * chance / std.size)  # in every coordinate of the mean
    source = SourceStatistics((moments.mean + apart).astype(np.float32), std, 512)
    elsewhere = _Elsewhere(network, source)
    prediction, state = step_on(elsewhere, configured, configured.bind(elsewhere.info).init(0), images)
    assert np.sqrt(np.mean(np.square(state.norms))) == pytest.approx(share * 0.01, rel=1e-2, abs=1e-5)
    offset = -share * network.info.head_weight @ features[:, -1].mean(axis=0)
    np.testing.assert_allclose(prediction.logits - logits, np.tile(offset, (64, 1)), atol=2e-3)


@pytest.mark.parametrize("count", [64, 256])
def test_no_more_is_asked_of_larger_batches(network: Network, random_images: MakeImages, count: int) -> None:
    """What is nothing for 64 images is nothing for 256, though chance alone would explain a fourth of it."""
    configured = Pizo(first_block=1, frozen_last_blocks=0, window=count)
    source = network.info.require_source("a test")
    info = replace(network.info, source=replace(source, images=10**6))
    chance = float(np.square(source.std.astype(np.float64)).sum()) * (1 / 64 + 1 / 126)
    assert configured.bind(info).alignment.compute_strength(1.9 * chance, count) == 0
    assert configured.bind(info).alignment.compute_strength(3 * chance, count) == pytest.approx(0.5, rel=1e-3)
    images = random_images(count)
    features, _ = middle(configured, network, images)
    moments = Moments.of(features)
    assert moments.std is not None
    std = moments.std.astype(np.float32)
    apart = np.sqrt(1.5 * (np.square(std.astype(np.float64)).sum() * (1 / 64 + 1 / 126)) / std.size)
    elsewhere = _Elsewhere(network, SourceStatistics((moments.mean + apart).astype(np.float32), std, 10**6))
    prediction, state = step_on(elsewhere, configured, configured.bind(elsewhere.info).init(0), images)
    assert prediction.diagnostics["need"] == 0
    assert not state.norms.any()


def middle(configured: Pizo, network: Network, images: ImageArray) -> tuple[FloatArray, FloatArray]:
    """Features and logits that the first step of a method sees, unshifted."""
    start = configured.bind(network.info).init(0)
    directions = configured.bind(network.info)._draw_directions(start, 0, len(images))
    moved = [configured.bind(network.info)._build_tunables(start, directions, sign) for sign in (1, -1)]
    plus, minus = network.candidates(images, moved)
    return (plus.features + minus.features) / 2, (plus.logits + minus.logits) / 2


class _Elsewhere:
    """A network with other source statistics."""

    def __init__(self, network: Network, source: SourceStatistics) -> None:
        self._network, self.info = network, replace(network.info, source=source)

    def __call__(self, images: ImageArray, **tunables: FloatArray) -> Outputs:
        return self._network(images, **tunables)

    def candidates(self, images: ImageArray, tunables: Any) -> list[Outputs]:
        return self._network.candidates(images, tunables)


def test_small_batches_wait_until_there_are_enough_images(
    network: Network, random_images: MakeImages
) -> None:
    adapter = Adapter(network, Pizo(**NARROW, update_images=8))  # type: ignore[arg-type]
    updates = []
    for seed, size in enumerate((3, 3, 1, 1, 8, 5)):
        adapter.step(random_images(size, seed=seed))
        updates.append((adapter.state.updates, adapter.state.images))  # type: ignore[attr-defined]
    assert updates == [(0, 3), (0, 6), (0, 7), (1, 0), (2, 0), (2, 5)]


def test_the_anchor_draws_back(network: Network, random_images: MakeImages) -> None:
    images = random_images(64)
    for anchor, expected in ((0.0, 1.0), (0.25, 0.75)):
        configured = Pizo(**{**NARROW, "rate": 0.0, "anchor": anchor})  # type: ignore[arg-type]
        start = configured.bind(network.info).init(0)
        start = replace(start, norms=np.ones_like(start.norms))
        _, state = step_on(network, configured, start, images)
        np.testing.assert_allclose(state.norms, expected)


def test_without_epsilon_nothing_is_learnt(network: Network, random_images: MakeImages) -> None:
    configured = Pizo(**{**NARROW, "epsilon": 0.0})  # type: ignore[arg-type]
    prediction, state = step_on(network, configured, configured.bind(network.info).init(0), random_images(64))
    assert not state.norms.any()
    np.testing.assert_array_equal(prediction.logits, network(random_images(64)).logits)


@pytest.mark.parametrize(
    "options",
    [
        {"samples": 3},
        {"shift": "origin"},
        {"shift": "source_mean"},
        {"shift": "origin", "entropy_on": "unshifted"},
        {"diversity_weight": 1.0},
        {"tune": "both"},
    ],
    ids=str,
)
def test_the_gradient_is_the_sum_written_out(
    bundle_path: Path, random_images: MakeImages, options: dict[str, Any]
) -> None:
    """Pair by pair and image by image, after an earlier batch that is in the window."""
    configured = Pizo(**{**NARROW, "update_images": 10**6, **options})  # type: ignore[arg-type]
    images = random_images(BATCH)
    with Network.open(bundle_path, workers=1) as network:
        info = network.info
        start = configured.bind(info).init(0)
        _, before = step_on(network, configured, start, random_images(6, seed=9))
        prediction, state = step_on(network, configured, before, images)
        pairs = []
        for sample in range(configured.samples):
            directions = configured.bind(network.info)._draw_directions(before, sample, BATCH)
            moved = [configured.bind(info)._build_tunables(before, directions, sign) for sign in (1, -1)]
            pairs.append((directions, *network.candidates(images, moved)))
    source, count = info.require_source("a test"), 2 * configured.samples
    assert prediction.forwards == count
    features = sum(plus.features + minus.features for _, plus, minus in pairs) / count
    everything = Moments.of(np.concatenate([before.window, features]))
    offset = np.zeros(info.classes)
    if configured.shift != "none":
        target = source.mean[-1] if configured.shift == "source_mean" else 0
        offset = 10 / 64 * info.head_weight @ (target - everything.mean[-1])
    seen = offset if configured.entropy_on == "shifted" else 0 * offset
    expected = {name: getattr(before, f"{name}_gradient").copy() for name in ("norms", "prompts")}
    for directions, plus, minus in pairs:
        slopes = 0.4 * compute_discrepancy_slopes(features, plus.features, minus.features, everything, source)
        slopes = slopes + entropy(plus.logits + seen) - entropy(minus.logits + seen)
        if configured.diversity_weight:
            slopes = slopes - compute_diversity_slopes(plus.logits + seen, minus.logits + seen)
        for name, size in (("norms", 0.01), ("prompts", 0.5)):
            if name in directions:
                terms = zip(slopes / (2 * size), directions[name], strict=True)
                expected[name] += sum(slope * z for slope, z in terms)
    for name in ("norms", "prompts"):
        np.testing.assert_allclose(getattr(state, f"{name}_gradient"), expected[name], rtol=1e-4, atol=1e-6)
    logits = sum(plus.logits + minus.logits for _, plus, minus in pairs) / count + offset
    np.testing.assert_allclose(prediction.logits, logits, rtol=1e-4, atol=1e-5)


def test_between_the_batches_it_learns_from_it_follows_with_one_forward(
    network: Network, random_images: MakeImages
) -> None:
    configured = Pizo(first_block=1, frozen_last_blocks=0, learn_every=3, update_images=BATCH, tolerance=0.0)
    adapter = Adapter(network, configured)
    forwards, updates, norms = [], [], []
    for seed in range(7):
        before = adapter.state
        images = random_images(BATCH, seed=seed)
        prediction = adapter.step(images)
        forwards.append(prediction.forwards)
        updates.append(adapter.state.updates)  # type: ignore[attr-defined]
        norms.append(adapter.state.norms)  # type: ignore[attr-defined]
        if seed == 2:
            plain = network(images, norms=_whole(network, norms[-2]))
            earlier = before.window[:, -1].sum(axis=0)  # type: ignore[attr-defined]
            center = (earlier + plain.features[:, -1].sum(axis=0)) / 12
            expected = plain.logits - 12 / 64 * network.info.head_weight @ center
            np.testing.assert_allclose(prediction.logits, expected, rtol=1e-4, atol=1e-5)
    assert forwards == [2, 1, 1, 2, 1, 1, 2]
    assert updates == [1, 1, 1, 2, 2, 2, 3]
    np.testing.assert_array_equal(norms[0], norms[2])


def _whole(network: Network, norms: FloatArray) -> FloatArray:
    """Return the tunable `norms` with these in the last rows but that of the final norm."""
    names = list(network.info.norms)
    found = np.zeros((1, len(names), 2, network.info.width), np.float32)
    found[0, [names.index(f"blocks.1.norm{number}") for number in (1, 2)]] = norms
    return found


@pytest.mark.parametrize("tune", ["norms", "prompts", "both"])
def test_what_is_tuned(bundle_path: Path, random_images: MakeImages, tune: str) -> None:
    fed: list[set[str]] = []

    with Network.open(bundle_path, workers=1) as opened:
        configured = method("pizo", tune=tune, first_block=0, tolerance=0.0)
        original = opened.candidates

        def candidates(images: ImageArray, tunables: Any) -> list[Outputs]:
            fed.append(set(tunables[0]))
            return original(images, tunables)

        opened.candidates = candidates  # type: ignore[method-assign]
        start = configured.bind(opened.info).init(3)
        _, state = step_on(opened, configured, start, random_images(64))
    expected = {"norms": {"norms"}, "prompts": {"prompts"}, "both": {"norms", "prompts"}}[tune]
    assert fed == [expected]
    for name in ("norms", "prompts"):
        assert (getattr(state, name).size > 0) == (name in expected)
        if name in expected:
            assert (getattr(state, name) != getattr(start, name)).all()


@pytest.mark.parametrize(("before", "window", "gain"), [(0, 64, 5 / 64), (3, 64, 8 / 64), (70, 66, 1.0)])
def test_prediction_is_the_mean_of_both_sides_shifted(
    network: Network, random_images: MakeImages, before: int, window: int, gain: float
) -> None:
    """By the mean of the last images in the window, and by less of it while they are fewer than 64."""
    configured = Pizo(first_block=1, frozen_last_blocks=0, window=window, update_images=10**6, tolerance=0.0)
    images, state = random_images(5), configured.bind(network.info).init(0)
    if before:
        _, state = step_on(network, configured, state, random_images(before, seed=1))
    directions = configured.bind(network.info)._draw_directions(state, 0, 5)
    moved = [configured.bind(network.info)._build_tunables(state, directions, sign) for sign in (1, -1)]
    plus, minus = network.candidates(images, moved)
    features = (plus.features + minus.features)[:, -1] / 2
    past = state.window[:, -1][-(window - 5) :]
    center = np.concatenate([past, features]).mean(axis=0)
    expected = (plus.logits + minus.logits) / 2 - gain * network.info.head_weight @ center
    prediction, following = step_on(network, configured, state, images)
    np.testing.assert_allclose(prediction.logits, expected, rtol=1e-5, atol=1e-5)
    assert prediction.diagnostics["entropy"] == pytest.approx(float(entropy(expected).mean()), rel=1e-5)
    again = predict_on(network, configured, following, images)
    center = following.window[:, -1].mean(axis=0)
    expected = network(images).logits - gain * network.info.head_weight @ center
    np.testing.assert_allclose(again.logits, expected, rtol=1e-5, atol=1e-5)


def test_what_it_needs(stand_in: Callable[..., Any]) -> None:
    plain = stand_in().info
    with pytest.raises(BundleError, match="norms"):
        Pizo().bind(plain).init(0)
    with pytest.raises(BundleError, match="fozo source"):
        Pizo().bind(replace(plain, source=None)).init(0)
    with pytest.raises(BundleError, match="zoa"):
        Pizo().bind(replace(plain, tunables=("norms", "batch_statistics"))).init(0)
    with pytest.raises(InputError, match="rate"):
        Pizo(rate=-1)
    with pytest.raises(InputError, match="momentum must be float"):
        Pizo(momentum=1.0)
