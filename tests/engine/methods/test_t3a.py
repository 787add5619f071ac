"""T3A against docs/specification.md §10 and §12.6, and against loops written from the same text."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doubles import RowNetwork, fallback_step_on, numbered_images, predict_on, step_on
from fozo.engine.methods import t3a as module
from fozo.engine.methods.t3a import T3a, T3aState, select_lowest_entropy
from fozo.engine.model import FloatArray
from fozo.engine.registry import METHODS
from fozo.engine.streams.adapter import Adapter
from fozo.testing import StandInNetwork, draw_images

StandIn = Callable[..., Any]
MANY = 10**6


def random_network(count: int, classes: int = 5, width: int = 7, seed: int = 0) -> RowNetwork:
    generator = np.random.default_rng(seed)
    return RowNetwork(
        2 * generator.normal(size=(count, width)),
        generator.normal(size=(classes, width)),
        0.3 * generator.normal(size=classes),
    )


def unit(row: FloatArray) -> FloatArray:
    length = math.sqrt(sum(float(value) ** 2 for value in row))
    return np.array([float(value) / length for value in row])


def judged(network: RowNetwork, row: FloatArray) -> tuple[int, float]:
    """Class and entropy that the head gives to a feature."""
    logits = [
        sum(float(w) * float(z) for w, z in zip(weights, row, strict=True)) + float(b)
        for weights, b in zip(network.weight, network.bias, strict=True)
    ]
    powers = [math.exp(value - max(logits)) for value in logits]
    shares = [power / sum(powers) for power in powers]
    return logits.index(max(logits)), -sum(share * math.log(share) for share in shares)


class Plain:
    """T3A as a list of (entropy, feature) per class."""

    def __init__(self, network: RowNetwork, limit: int) -> None:
        self.network, self.limit = network, limit
        self.kept: dict[int, list[tuple[float, FloatArray]]] = {}
        self.take(network.weight)

    def take(self, rows: FloatArray) -> None:
        for row in rows:
            label, entropy = judged(self.network, row)
            self.kept.setdefault(label, []).append((entropy, row))
        for label, members in self.kept.items():
            self.kept[label] = sorted(members, key=lambda member: member[0])[: self.limit]

    def logits(self, rows: FloatArray) -> FloatArray:
        found = np.zeros((len(rows), len(self.network.weight)))
        for label, members in self.kept.items():
            prototype = unit(sum(unit(row) for _, row in members))
            found[:, label] = [sum(row.astype(float) * prototype) for row in rows]
        return found


def assert_sound(state: T3aState, limit: int) -> None:
    """Check everything that holds for any state."""
    classes = len(state.prototypes)
    assert state.supports.dtype == state.prototypes.dtype == np.float32
    assert (state.labels.dtype, state.entropies.dtype) == (np.int64, np.float64)
    assert len(state.supports) == len(state.labels) == len(state.entropies) <= limit * classes
    assert np.bincount(state.labels).max() <= limit
    np.testing.assert_allclose(np.linalg.norm(state.supports, axis=1), 1, atol=1e-6)
    for label in range(classes):
        members = state.supports[state.labels == label].astype(float)
        expected = unit(members.sum(axis=0)) if len(members) else np.zeros(members.shape[1])
        np.testing.assert_allclose(state.prototypes[label], expected, atol=1e-6)


# --- published values


def test_published_values() -> None:
    network = RowNetwork([[2, 0.1, 0], [0.2, 1, 0.9], [0, 0.1, 3]], np.eye(3), np.zeros(3))
    method = T3a(supports=1)
    prediction, state = step_on(network, method, method.bind(network.info).init(0), numbered_images(0, 1, 2))
    expected = [
        [2.0024984395, 0.1, 0.003331483],
        [0.2496880847, 1, 0.9328152465],
        [0.0049937617, 0.1, 3.001666204],
    ]
    np.testing.assert_allclose(prediction.logits, expected, rtol=0, atol=3e-7)
    by_class = state.supports[np.argsort(state.labels)]
    kept = np.stack([unit(network.features[0]), [0, 1, 0], unit(network.features[2])])
    np.testing.assert_allclose(by_class, kept, atol=1e-7)
    assert prediction.diagnostics["supports"] == 3


def test_defaults() -> None:
    assert METHODS["t3a"] == T3a(supports=20)


# --- against loops


@pytest.mark.parametrize("limit", [1, 2, 5, 20, MANY])
@pytest.mark.parametrize("sizes", [(7, 7, 7, 7), (64, 64), (1, 2, 1, 30, 1, 5), (1,) * 25])
def test_against_loops(sizes: tuple[int, ...], limit: int) -> None:
    network = random_network(sum(sizes), seed=len(sizes))
    method, plain, first = T3a(supports=limit), Plain(network, limit), 0
    state = method.bind(network.info).init(0)
    assert_sound(state, limit)
    for size in sizes:
        rows = network.features[first : first + size]
        plain.take(rows)
        prediction, state = step_on(network, method, state, numbered_images(*range(first, first + size)))
        np.testing.assert_allclose(prediction.logits, plain.logits(rows), rtol=1e-5, atol=1e-5)
        assert prediction.logits.dtype == np.float32
        assert_sound(state, limit)
        first += size
    for label, members in plain.kept.items():
        own = state.labels == label
        assert sorted(state.entropies[own]) == pytest.approx([entropy for entropy, _ in members], abs=1e-5)
    assert len(state.labels) == sum(len(members) for members in plain.kept.values())


def test_many_classes_are_judged_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    network = random_network(1, classes=50)
    whole = T3a().bind(network.info).init(0)
    monkeypatch.setattr(module, "HEAD_ROWS", 7)
    parts = T3a().bind(network.info).init(0)
    assert np.array_equal(whole.labels, parts.labels)
    np.testing.assert_allclose(whole.entropies, parts.entropies, atol=1e-5)


def test_kept_are_the_lowest_and_of_equals_the_earlier() -> None:
    labels = np.array([1, 0, 1, 1, 0, 1, 3])
    entropies = np.array([0.5, 0.2, 0.1, 0.5, 0.2, 0.3, 9.0])
    for count, kept in ((1, [1, 2, 6]), (2, [1, 2, 4, 5, 6]), (3, [0, 1, 2, 4, 5, 6]), (4, range(7))):
        assert np.flatnonzero(select_lowest_entropy(entropies, labels, count)).tolist() == list(kept)


# --- invariants


def test_initial_state_is_the_cosine_classifier() -> None:
    network = RowNetwork(
        random_network(9).features, 3 * np.linalg.qr(random_network(7).features)[0][:5], [0] * 5
    )
    method = T3a(supports=MANY)
    state = method.bind(network.info).init(0)
    cosine = network.features @ np.stack([unit(row) for row in network.weight]).T
    prediction = predict_on(network, method, state, numbered_images(*range(9)))
    np.testing.assert_allclose(prediction.logits, cosine, rtol=1e-5, atol=1e-5)
    assert state.labels.tolist() == list(range(5))


def test_a_class_that_no_row_of_the_head_belongs_to() -> None:
    network = RowNetwork([[1, 2], [2, 1]], [[1, 0], [0, 1], [0.2, 0.1]], [0, 0, -9])  # never the third
    method = T3a()
    prediction, state = step_on(network, method, method.bind(network.info).init(0), numbered_images(0, 1))
    assert sorted(state.labels) == [0, 0, 0, 1, 1]
    assert state.prototypes[2].tolist() == [0, 0]
    assert prediction.logits[:, 2].tolist() == [0, 0]


def test_a_feature_of_zeros() -> None:
    network = RowNetwork([[0, 0], [2, 1]], np.eye(2), [0, 0])
    method = T3a()
    with np.errstate(all="raise", under="ignore"):
        prediction, state = step_on(network, method, method.bind(network.info).init(0), numbered_images(0, 1))
    assert np.isfinite(prediction.logits).all() and np.isfinite(state.supports).all()


def test_how_images_come_in_batches_plays_no_part_in_what_is_kept() -> None:
    network, method = random_network(60), T3a(supports=3)

    def after(order: Any, size: int) -> T3aState:
        state = method.bind(network.info).init(0)
        for first in range(0, len(order), size):
            state = step_on(network, method, state, numbered_images(*order[first : first + size]))[1]
        return state

    at_once = after(range(60), 60)
    for other in (after(range(60), 1), after(range(60), 7)):
        assert other.supports.tobytes() == at_once.supports.tobytes()
        assert other.prototypes.tobytes() == at_once.prototypes.tobytes()
    np.testing.assert_allclose(after(range(60)[::-1], 7).prototypes, at_once.prototypes, atol=1e-6)


def test_a_batch_of_which_nothing_is_kept_changes_only_the_count() -> None:
    network = RowNetwork([[9, 0], [0, 9], [0.1, 0], [0, 0.1]], np.eye(2), [0, 0])
    method = T3a(supports=1)
    _, confident = step_on(network, method, method.bind(network.info).init(0), numbered_images(0, 1))
    prediction, following = step_on(network, method, confident, numbered_images(2, 3))
    assert following == replace(confident, step=2)
    assert following.supports is confident.supports
    assert (
        prediction.logits.tolist()
        == predict_on(network, method, confident, numbered_images(2, 3)).logits.tolist()
    )


def test_the_batch_is_taken_in_before_it_is_predicted() -> None:
    network, method = random_network(6), T3a()
    initial = method.bind(network.info).init(0)
    prediction, state = step_on(network, method, initial, numbered_images(*range(6)))
    before = predict_on(network, method, initial, numbered_images(*range(6)))
    after = predict_on(network, method, state, numbered_images(*range(6)))
    assert prediction.logits.tobytes() == after.logits.tobytes()
    assert not np.allclose(before.logits, after.logits, atol=1e-2)


def test_logits_grow_with_the_length_of_the_feature() -> None:
    network, method = random_network(6), T3a()
    state = method.bind(network.info).init(0)
    logits = predict_on(network, method, state, numbered_images(*range(6))).logits
    network.features *= 4
    np.testing.assert_allclose(
        predict_on(network, method, state, numbered_images(*range(6))).logits, 4 * logits, rtol=1e-6
    )


def test_one_forward(stand_in: StandIn) -> None:
    network, method = stand_in(), T3a()
    given = np.random.default_rng(0).integers(0, 256, (4, 2, 2, 3), dtype=np.uint8)
    prediction, state = step_on(network, method, method.bind(network.info).init(0), given)
    assert network.forwards == prediction.forwards == method.forwards == 1
    assert predict_on(network, method, state, given).forwards == 1
    assert network.forwards == 2


# --- inside the engine


def test_reset_restores_the_initial_supports(bundle_path: Path, random_images: Any) -> None:
    adapter = Adapter.open(bundle_path, method="t3a", workers=1)
    initial = vars(adapter.state)
    adapter.step(random_images(7))
    assert len(adapter.state.labels) > len(initial["labels"])  # type: ignore[attr-defined]
    adapter.reset()
    for name, value in initial.items():
        assert np.array_equal(value, getattr(adapter.state, name))


def test_with_some_classes_it_is_built_from_those(bundle_path: Path, random_images: Any) -> None:
    chosen, given = [17, 3, 4, 11], random_images(9)
    adapter = Adapter.open(bundle_path, method="t3a", classes=chosen, supports=2, workers=1)
    network = Adapter.open(bundle_path, method="no_adapt", workers=1).network
    features = network(given).features[:, -1]
    head = RowNetwork(features, network.info.head_weight[chosen], network.info.head_bias[chosen])
    plain = Plain(head, 2)
    plain.take(features)
    np.testing.assert_allclose(adapter.step(given).logits, plain.logits(features), rtol=1e-4, atol=1e-4)
    assert adapter.state.prototypes.shape == (4, features.shape[1])  # type: ignore[attr-defined]


def test_resumed(bundle_path: Path, random_images: Any, tmp_path: Path) -> None:
    batches = [random_images(size, seed=size) for size in (3, 1, 20, 4)]
    whole, cut = (Adapter.open(bundle_path, method="t3a", supports=2, workers=1) for _ in range(2))
    expected = [whole.step(batch).logits.tobytes() for batch in batches]
    for batch in batches[:2]:
        cut.step(batch)
    cut.save(tmp_path / "state.npz")
    cut.reset()
    cut.load(tmp_path / "state.npz")
    assert [cut.step(batch).logits.tobytes() for batch in batches[2:]] == expected[2:]


def test_a_broken_image_becomes_no_support() -> None:
    network, method = random_network(9), T3a()
    _, state = step_on(network, method, method.bind(network.info).init(0), numbered_images(0, 1, 2))
    network.features[4] = np.nan
    prediction, following = fallback_step_on(network, method, state, numbered_images(3, 4))
    assert prediction.fallback
    assert following == replace(state, step=2)


def test_classes_from_texts_are_scaled_as_the_network_scales_them() -> None:
    """Supports are texts and images of length 1, and logits cosines times τ: τ for both, as CLIP's."""
    network = StandInNetwork(texts=True)
    scale = network.info.logit_scale
    texts = network.info.head_weight / scale
    adapter = Adapter(network, T3a(supports=2))
    images = draw_images(3)
    outputs = network(images)
    features = outputs.features[:, -1]
    rows, labels = np.concatenate([texts, features]), [*range(6), *outputs.logits.argmax(axis=1)]
    logits = scale * rows @ texts.T
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    entropies = -(p * np.log(p)).sum(axis=1)
    prototypes = np.zeros((6, 8))
    for label in range(6):
        kept = sorted((i for i in range(9) if labels[i] == label), key=lambda i: entropies[i])[:2]
        total = sum(rows[i] for i in kept)
        prototypes[label] = total / np.linalg.norm(total)
    np.testing.assert_allclose(
        adapter.step(images).logits, scale * features @ prototypes.T, rtol=1e-4, atol=1e-4
    )
