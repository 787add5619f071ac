"""Gaussian classes against published numbers, and against OGA's and DOTA's equations image by image."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fozo.engine.errors import InputError
from fozo.engine.methods.gauss import Gauss
from fozo.engine.model import FloatArray
from fozo.engine.registry import METHODS
from fozo.engine.statistics.class_memory import ClassMemory
from fozo.engine.streams.adapter import Adapter
from fozo.testing import StandInNetwork, check_method
from stream_doubles import MODEL, answer_image, draw_stream, list_outputs


def normalise(logits: Any) -> FloatArray:
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities: FloatArray = weights / weights.sum(axis=-1, keepdims=True)
    return probabilities


# --- hard labels: OGA


def test_the_published_stream_of_oga() -> None:
    bound: Any = Gauss(slots=3, weight=0.5).bind(MODEL)
    state = replace(bound.init(0), memory=ClassMemory.create_empty(3, 3, 2, np.float64))
    answers = []
    for index in range(7):
        state = bound.add_images(state, answer_image(index))
        answers.append(normalise(bound.compute_logits(state, answer_image(index)))[0])
    np.testing.assert_allclose(answers[4][:2], [0.9744646555, 0.0255353436], atol=5e-11)
    assert answers[4][2] == pytest.approx(9e-10, abs=5e-11)
    np.testing.assert_allclose(answers[6][:2], [0.3269783902, 0.6730216003], atol=5e-11)
    assert answers[6][2] == pytest.approx(9.5e-9, abs=5e-11)
    expected = [[21.6194815235, 5.579559176], [5.579559176, 19.7785383894]]
    np.testing.assert_allclose(state.precision, expected, atol=5e-10)


class Oga:
    """OGA in lists: memory, means, covariance by `numpy.cov`, and density by the definition."""

    def __init__(self, texts: FloatArray, options: Gauss) -> None:
        self.texts, self.options = texts, options
        self.memory: list[list[tuple[float, FloatArray]]] = [[] for _ in texts]

    def step(self, z: FloatArray, x: FloatArray) -> FloatArray:
        """Return probabilities of a batch, after it entered the memory."""
        p = normalise(z)
        for probabilities, feature in zip(p, x, strict=True):
            cache = self.memory[int(probabilities.argmax())]
            cache.append((float(-(probabilities * np.log(probabilities)).sum()), feature))
            cache.sort(key=lambda entry: entry[0])
            del cache[self.options.slots :]
        means, precision = self.means(), self.precision()
        g = np.array(
            [[-0.5 * (feature - mean) @ precision @ (feature - mean) for mean in means] for feature in x]
        )
        q = p * normalise(self.options.weight * g)
        answer: FloatArray = q / q.sum(axis=1, keepdims=True)
        return answer

    def means(self) -> list[FloatArray]:
        result = []
        for text, cache in zip(self.texts, self.memory, strict=True):
            divisor = len(cache) if self.options.mean == "images" else self.options.slots
            result.append(sum(feature for _, feature in cache) / divisor if len(cache) >= 2 else text)
        return result

    def precision(self) -> FloatArray:
        d = self.texts.shape[1]
        if max(map(len, self.memory)) <= 2:
            return d * np.eye(d)
        rows = [f - m for m, cache in zip(self.means(), self.memory, strict=True) for _, f in cache]
        sigma, n = np.cov(np.array(rows).T), len(rows)
        if n > 4 * d:
            inverse: FloatArray = np.linalg.pinv(sigma)
            return inverse
        shrunk: FloatArray = d * np.linalg.inv((n - 1) * sigma + np.trace(sigma) * np.eye(d))
        return shrunk


@pytest.mark.parametrize("texts", [False, True])
@pytest.mark.parametrize(
    "options", [Gauss(), Gauss(slots=3, weight=0.5), Gauss(slots=24, mean="slots", weight=0.2)]
)
def test_fourteen_batches_are_those_of_oga(options: Gauss, texts: bool) -> None:
    network, stream = StandInNetwork(texts=texts), draw_stream()
    rows = network.info.head_weight.astype(np.float64)
    reference = Oga(rows / np.linalg.norm(rows, axis=1, keepdims=True), options)
    adapter = Adapter(network, options)
    changes = 0.0
    for images, (logits, features) in zip(stream, list_outputs(network, stream), strict=True):
        prediction = adapter.step(images)
        expected = reference.step(logits, features)
        np.testing.assert_allclose(prediction.probabilities, expected, rtol=2e-3, atol=2e-5)
        changes = max(changes, np.abs(expected - normalise(logits)).max())
    assert changes > 0.01
    remembered = sum(map(len, reference.memory))
    assert prediction.diagnostics["remembered"] == remembered
    assert (remembered > 32) is (options.slots == 24)  # above four times the width, nothing is shrunk


def test_equal_images_have_no_covariance() -> None:
    network = StandInNetwork()
    adapter = Adapter(network, Gauss())
    images = np.repeat(draw_stream(1)[0][:1], 5, axis=0)
    prediction = adapter.step(images)
    state: Any = adapter.state
    assert not prediction.fallback
    np.testing.assert_allclose(state.precision, 8 * np.eye(8), atol=1e-6)


def test_an_image_that_is_not_finite_is_not_remembered() -> None:
    class Broken(StandInNetwork):
        def __call__(self, images: Any, **tunables: Any) -> Any:
            outputs = super().__call__(images, **tunables)
            outputs.features[0, -1] = np.nan
            return outputs

    for options in (Gauss(), Gauss(labels="soft")):
        healthy = Adapter(StandInNetwork(), options)
        for images in draw_stream(12):
            healthy.step(images)
        broken = Adapter(Broken(), options)
        broken.restore(healthy.snapshot())
        prediction = broken.step(draw_stream(1)[0])
        assert prediction.fallback
        assert np.isfinite(prediction.logits).all()


# --- soft labels: DOTA


@pytest.mark.parametrize("covariance", ["classes", "shared"])
def test_the_published_stream_of_dota(covariance: Any) -> None:
    bound: Any = Gauss(labels="soft", covariance=covariance, variance=0.004, ridge=1e-3).bind(MODEL)
    state = bound.init(0)
    for index in range(7):
        logits = bound.compute_logits(state, answer_image(index))[0]
        state = bound.add_images(state, answer_image(index))
    np.testing.assert_allclose(state.counts, [3.96178134, 3.2946914968, 2.7435271632], atol=5e-11)
    tolerance = 5e-11 if covariance == "classes" else 0.02  # one covariance is nearly the average of three
    np.testing.assert_allclose(logits, [8.1305437506, 8.6967801044, -1.8399116787], atol=tolerance)


class Dota:
    """DOTA's equations; the shared covariance is the sum of squared deviations over that of counts."""

    def __init__(self, texts: FloatArray, options: Gauss) -> None:
        k, d = texts.shape
        self.options, self.c, self.mu = options, np.ones(k), texts.copy()
        self.sigma = np.stack([options.variance * np.eye(d)] * k)
        self.shared = k * options.variance * np.eye(d)

    def step(self, z: FloatArray, x: FloatArray) -> FloatArray:
        """Return logits of a batch, which then changes the Gaussians; deviations are from the old means."""
        options, d = self.options, x.shape[1]
        sigma = self.sigma.mean(0) if options.covariance == "classes" else self.shared / self.c.sum()
        precision = np.linalg.inv((1 - options.ridge) * sigma + options.ridge * np.eye(d))
        gain = min(options.gain * self.c.mean(), options.gain_limit)
        answer = np.array(
            [
                [
                    logit + gain * (feature @ precision @ mean - 0.5 * mean @ precision @ mean)
                    for logit, mean in zip(logits, self.mu, strict=True)
                ]
                for logits, feature in zip(z, x, strict=True)
            ]
        )
        p, old_c, old_mu = normalise(z), self.c.copy(), self.mu.copy()
        for label in range(len(self.c)):
            outer = sum(
                p[i, label] * np.outer(x[i] - old_mu[label], x[i] - old_mu[label]) for i in range(len(x))
            )
            self.shared = self.shared + outer
            total = old_c[label] + p[:, label].sum()
            self.sigma[label] = (old_c[label] * self.sigma[label] + outer) / total
            self.mu[label] = (old_c[label] * old_mu[label] + p[:, label] @ x) / total
            self.c[label] = total
        return answer


@pytest.mark.parametrize("texts", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        Gauss(labels="soft"),
        Gauss(labels="soft", covariance="classes"),
        Gauss(labels="soft", variance=0.02, ridge=0.01, gain=0.05, gain_limit=0.5),
    ],
)
def test_fourteen_batches_are_those_of_dota(options: Gauss, texts: bool) -> None:
    network, stream = StandInNetwork(texts=texts), draw_stream()
    rows = network.info.head_weight.astype(np.float64)
    reference = Dota(rows / np.linalg.norm(rows, axis=1, keepdims=True), options)
    adapter = Adapter(network, options)
    changes = 0.0
    for images, (logits, features) in zip(stream, list_outputs(network, stream), strict=True):
        expected = reference.step(logits, features)
        np.testing.assert_allclose(adapter.step(images).logits, expected, rtol=1e-4, atol=1e-4)
        changes = max(changes, np.abs(expected - logits).max())
    assert changes > 0.5
    state: Any = adapter.state
    np.testing.assert_allclose(state.means, reference.mu, atol=1e-9)


def test_covariances_of_many_classes_are_refused() -> None:
    model = replace(MODEL, head_weight=np.ones((1000, 512), np.float32), head_bias=np.zeros(1000, np.float32))
    Gauss(labels="soft").bind(model)
    with pytest.raises(InputError, match=r"1000 single classes take 2\.1 GB; use covariance=shared"):
        Gauss(labels="soft", covariance="classes").bind(model)


# --- both


def test_the_defaults_are_those_of_one_setting_for_all_sets() -> None:
    assert METHODS["gauss"] == Gauss("hard", 8, 0.05, "images", "shared", 0.004, 1e-4, 0.005, 0.2)


@pytest.mark.parametrize("kind", [{}, {"texts": True}, {"batch_norms": True}])
@pytest.mark.parametrize(
    "options",
    [Gauss(slots=2), Gauss(mean="slots"), Gauss(labels="soft"), Gauss(labels="soft", covariance="classes")],
)
def test_the_contract_is_kept_on_every_kind_of_network(options: Gauss, kind: dict[str, bool]) -> None:
    check_method(options, StandInNetwork(**kind))


def test_permuting_classes_permutes_the_logits() -> None:
    network, stream, order = StandInNetwork(texts=True), draw_stream(6), [4, 2, 0, 5, 1, 3]
    for options in (Gauss(), Gauss(labels="soft")):
        left, right = Adapter(network, options), Adapter(permute(network, order), options)
        for images in stream:
            expected = left.step(images).logits[:, order]
            np.testing.assert_allclose(right.step(images).logits, expected, rtol=1e-4, atol=1e-4)


def permute(network: StandInNetwork, order: list[int]) -> StandInNetwork:
    return network.select(order)
