"""BCA against a loop over lists of numbers, image by image."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from doubles import predict_on, state_bits
from fozo.engine.methods.bca import Bca
from fozo.engine.model import ModelInfo, Outputs
from fozo.engine.registry import METHODS
from fozo.engine.streams.adapter import Adapter
from fozo.testing import StandInNetwork
from stream_doubles import draw_stream


class Reference:
    """Bayes' rule image by image, with Python's numbers."""

    def __init__(self, network: StandInNetwork, options: Bca) -> None:
        self.options, self.info = options, network.info
        rows = network.info.head_weight.astype(float)
        self.means = [[float(v) for v in row / math.sqrt(sum(row**2))] for row in rows]
        self.first = [list(row) for row in self.means]
        self.row_length = sum(math.sqrt(sum(row**2)) for row in rows) / len(rows)
        classes = len(rows)
        self.priors = [[float(i == j) for j in range(classes)] for i in range(classes)]
        self.counts = [[options.embedding_count, options.prior_count] for _ in range(classes)]

    def step(self, z: Any, feature: Any) -> list[float]:
        options = self.options
        length = math.sqrt(sum(float(v) ** 2 for v in feature))
        x = [float(v) / length for v in feature]
        scale = options.scale or (
            self.info.logit_scale if self.info.takes_classifier else self.row_length * length
        )
        scores = [scale * sum(a * b for a, b in zip(x, mean, strict=True)) for mean in self.means]
        if options.logits == "network":
            scores = [
                float(z[k]) + scores[k] - scale * sum(a * b for a, b in zip(x, self.first[k], strict=True))
                for k in range(len(scores))
            ]
        powers = [math.exp(score - max(scores)) for score in scores]
        s = [power / sum(powers) for power in powers]
        p = [sum(s[j] * self.priors[j][k] for j in range(len(s))) for k in range(len(s))]
        label = p.index(max(p))
        if p[label] > options.move_above:
            count = self.counts[label][0]
            mean = [(count * m + v) / (count + 1) for m, v in zip(self.means[label], x, strict=True)]
            size = math.sqrt(sum(v * v for v in mean))
            self.means[label] = [v / size for v in mean]
            self.counts[label][0] += 1
        if p[label] > options.prior_above:
            count = self.counts[label][1]
            self.priors[label] = [
                (count * old + new) / (count + 1) for old, new in zip(self.priors[label], p, strict=True)
            ]
            self.counts[label][1] += 1
        return p


VARIANTS = [
    Bca(),
    Bca(embedding_count=3.0, prior_above=0.2),
    Bca(embedding_count=0.0, prior_count=0.0, prior_above=0.3, scale=4.0),
    Bca(embedding_count=2.0, prior_above=0.3, logits="network"),
    Bca(embedding_count=1.0, move_above=0.4, prior_above=1.0),
]


@pytest.mark.parametrize("texts", [False, True])
@pytest.mark.parametrize("options", VARIANTS)
def test_fourteen_batches_are_those_of_the_reference(options: Bca, texts: bool) -> None:
    network, stream = StandInNetwork(texts=texts), draw_stream()
    adapter, reference = Adapter(network, options), Reference(network, options)
    for images in stream:
        outputs = network(images)
        expected = np.array(
            [reference.step(z, x) for z, x in zip(outputs.logits, outputs.features[:, -1], strict=True)]
        )
        np.testing.assert_allclose(adapter.step(images).probabilities, expected, rtol=2e-4, atol=2e-6)
    state: Any = adapter.state
    np.testing.assert_allclose(state.embeddings, reference.means, atol=2e-5)
    np.testing.assert_allclose(state.priors, reference.priors, atol=2e-5)
    assert np.stack([state.embedding_counts, state.prior_counts], 1).tolist() == reference.counts
    assert (state.embeddings.dtype, state.priors.dtype) == (np.float32, np.float32)
    moved = state.embedding_counts.sum() - 6 * options.embedding_count
    assert moved == sum(map(len, stream)) if options.move_above < 1 / 6 else moved > 0
    assert (state.prior_counts.sum() > 6 * options.prior_count) == (options.prior_above < 1)


def test_defaults_of_the_paper() -> None:
    assert METHODS["bca"] == Bca(
        move_above=0.05, prior_above=0.65, embedding_count=20000.0, prior_count=1.0, logits="cosines"
    )


def test_the_first_image_is_predicted_by_the_frozen_network() -> None:
    images = draw_stream(1)[0][:1]
    network = StandInNetwork(texts=True)
    np.testing.assert_allclose(
        Adapter(network, Bca()).step(images).probabilities,
        np.exp(network(images).logits) / np.exp(network(images).logits).sum(),
        rtol=1e-4,
    )
    network = StandInNetwork()
    kept = Adapter(network, Bca(logits="network")).step(images).probabilities
    np.testing.assert_allclose(
        kept, np.exp(network(images).logits) / np.exp(network(images).logits).sum(), rtol=1e-4
    )


@pytest.mark.parametrize("options", VARIANTS)
def test_batches_make_no_difference(options: Bca) -> None:
    network, images = StandInNetwork(), np.concatenate(draw_stream(5))
    batch, single = Adapter(network, options), Adapter(network, options)
    together = batch.step(images).logits
    alone = np.concatenate([single.step(images[i : i + 1]).logits for i in range(len(images))])
    np.testing.assert_allclose(together, alone, atol=1e-4)


def test_permuting_classes_permutes_the_logits() -> None:
    network, order = StandInNetwork(texts=True), [4, 2, 0, 5, 1, 3]
    options = Bca(embedding_count=5.0, prior_above=0.3)
    left, right = Adapter(network, options), Adapter(network.select(order), options)
    for images in draw_stream(6):
        np.testing.assert_allclose(
            right.step(images).logits, left.step(images).logits[:, order], rtol=1e-4, atol=1e-4
        )


def test_impossible_classes_have_finite_logits() -> None:
    network = StandInNetwork(texts=True)
    adapter = Adapter(network, Bca(scale=1e6))
    for images in draw_stream(3):
        prediction = adapter.step(images)
        assert np.isfinite(prediction.logits).all() and not prediction.fallback


def test_predicting_changes_nothing() -> None:
    network, stream = StandInNetwork(), draw_stream(3)
    adapter = Adapter(network, Bca(embedding_count=2.0))
    adapter.step(stream[0])
    before = state_bits(adapter.state)
    prediction = predict_on(network, adapter.method, adapter.state, stream[1])
    assert state_bits(adapter.state) == before
    first = Adapter(network, Bca(embedding_count=2.0))
    first.step(stream[0])
    np.testing.assert_allclose(prediction.logits[0], first.step(stream[1][:1]).logits[0], atol=1e-4)


def test_two_images_by_hand() -> None:
    """Classes [1, 0] and [0, 1]; τ is so large that the first image is of class 0 with certainty."""
    model = ModelInfo("plane", "plane", 1, 2, 1, 0.0, np.eye(2, dtype=np.float32), np.zeros(2, np.float32))
    bound = Bca(scale=1000.0, embedding_count=1.0).bind(model)
    steps = bound.step(bound.init(0), np.zeros((1, 2, 2, 3), np.uint8))
    next(steps)
    feature = np.array([[[2 * math.cos(0.4), 2 * math.sin(0.4)]]], np.float32)
    with pytest.raises(StopIteration) as end:
        steps.send([Outputs(np.zeros((1, 2), np.float32), feature)])
    prediction, state = end.value.value
    np.testing.assert_allclose(prediction.probabilities, [[1, 0]], atol=1e-12)
    np.testing.assert_allclose(state.embeddings[0], [math.cos(0.2), math.sin(0.2)], atol=1e-6)
    assert state.embedding_counts.tolist() == [2, 1] and state.prior_counts.tolist() == [2, 1]
    assert state.priors.tolist() == [[1, 0], [0, 1]]
