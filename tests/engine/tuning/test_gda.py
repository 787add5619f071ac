"""GDA against scikit-learn's discriminant analysis and the formulas of its paper."""

from __future__ import annotations

import numpy as np
import pytest
from fozo.engine.errors import InputError
from fozo.engine.model import FloatArray
from fozo.engine.statistics.objective import log_softmax
from fozo.engine.tuning.gda import ALPHAS, Examples, Gda, choose_alpha, fit_gaussians

CLASSES, WIDTH, PADDED, SHOTS, SCALE = 3, 6, 8, 8, 10.0


def draw_features(shots: int = SHOTS, seed: int = 0, noise: float = 0.3) -> Examples:
    generator = np.random.default_rng(seed)
    centers = np.random.default_rng(9).normal(size=(CLASSES, WIDTH))
    labels = np.tile(np.arange(CLASSES), shots)
    features = centers[labels] + noise * generator.normal(size=(len(labels), WIDTH))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return Examples(np.pad(features, [(0, 0), (0, PADDED - WIDTH)]).astype(np.float32), labels)


def draw_texts() -> FloatArray:
    rows = np.random.default_rng(5).normal(size=(CLASSES, WIDTH))
    rows *= SCALE / np.linalg.norm(rows, axis=1, keepdims=True)
    return np.pad(rows, [(0, 0), (0, PADDED - WIDTH)]).astype(np.float32)


def test_probabilities_are_those_of_the_papers_formulas() -> None:
    """Densities of normal distributions with the shrunk covariance, in plain loops."""
    features, labels = draw_features()
    features = features[:, :WIDTH].astype(np.float64)
    weight, bias = fit_gaussians(features, labels, CLASSES)
    means = np.stack([features[labels == label].mean(0) for label in range(CLASSES)])
    centred = features - means[labels]
    covariance = np.cov(centred.T)
    precision = WIDTH * np.linalg.inv((len(features) - 1) * covariance + np.trace(covariance) * np.eye(WIDTH))
    densities = np.stack([[-0.5 * (x - mean) @ precision @ (x - mean) for mean in means] for x in features])
    np.testing.assert_allclose(log_softmax(features @ weight.T + bias), log_softmax(densities), atol=1e-8)


def test_decisions_are_those_of_scikit_learn() -> None:
    """With many images, where shrinking matters little."""
    analysis = pytest.importorskip("sklearn.discriminant_analysis", reason="the reference is scikit-learn's")
    features, labels = draw_features(shots=400, noise=1.0)
    features = features[:, :WIDTH].astype(np.float64)
    weight, bias = fit_gaussians(features, labels, CLASSES)
    reference = analysis.LinearDiscriminantAnalysis(solver="lsqr").fit(features, labels)
    test = draw_features(shots=100, seed=1, noise=1.0).features[:, :WIDTH]
    agreement = (test @ weight.T + bias).argmax(1) == reference.predict(test)
    assert agreement.mean() > 0.98


@pytest.mark.parametrize("alpha", [0.0, 0.01, 1.0])
def test_the_classifier_adds_to_that_of_the_texts(alpha: float) -> None:
    examples, texts = draw_features(), draw_texts()
    method = Gda(texts, WIDTH, alpha)
    start = method.init(np.zeros((1, 4), np.float32), 1)
    np.testing.assert_array_equal(start.weight, texts)
    state, record = method.step(start, examples)
    weight, bias = fit_gaussians(examples.features[:, :WIDTH].astype(np.float64), examples.labels, CLASSES)
    np.testing.assert_allclose(state.weight[:, :WIDTH], texts[:, :WIDTH] + alpha * weight, rtol=1e-5)
    np.testing.assert_allclose(state.bias, alpha * bias, rtol=1e-5)
    assert not state.weight[:, WIDTH:].any()
    assert (state.weight.dtype, state.bias.dtype, state.alpha) == (np.float32, np.float32, alpha)
    log_p = log_softmax(examples.features @ state.weight.T + state.bias)
    assert record.loss == pytest.approx(-log_p[np.arange(len(log_p)), examples.labels].mean())
    assert method.losses_per_step == 0


def test_alpha_is_chosen_by_cross_validation() -> None:
    examples = draw_features(noise=0.5)
    features = examples.features[:, :WIDTH].astype(np.float64)
    useless = np.zeros((CLASSES, WIDTH))
    alpha = choose_alpha(features, examples.labels, useless)
    assert alpha == ALPHAS[0]  # of equals the smallest: texts that say nothing need no weight
    perfect = 1000 * np.linalg.qr(np.random.default_rng(0).normal(size=(WIDTH, WIDTH)))[0][:CLASSES]
    texts = np.stack([features[examples.labels == label].mean(0) for label in range(CLASSES)])
    assert choose_alpha(features, examples.labels, 1000 * texts) == ALPHAS[0]
    assert choose_alpha(features, examples.labels, perfect) == ALPHAS[-1]  # texts that mislead
    state, _ = Gda(draw_texts(), WIDTH).step(Gda(draw_texts(), WIDTH).init(np.zeros((1, 4)), 1), examples)
    assert state.alpha in ALPHAS


@pytest.mark.parametrize(("shots", "alpha"), [(1, None), (0, 1.0)])
def test_too_few_images(shots: int, alpha: float | None) -> None:
    method = Gda(draw_texts(), WIDTH, alpha)
    with pytest.raises(InputError, match=r"give more --shots, or a number with --alpha"):
        method.step(method.init(np.zeros((1, 4), np.float32), 1), draw_features(shots))


def test_one_image_of_each_class_is_enough_with_alpha() -> None:
    """Without a covariance, the classes with the nearest mean win."""
    method, examples = Gda(np.zeros((CLASSES, PADDED), np.float32), WIDTH, 1.0), draw_features(1)
    state, _ = method.step(method.init(np.zeros((1, 4), np.float32), 1), examples)
    test = draw_features(5, seed=2).features
    distances = np.square(test[:, None] - examples.features[None]).sum(2)
    predicted = (test @ state.weight.T + state.bias).argmax(1)
    np.testing.assert_array_equal(predicted, examples.labels[distances.argmin(1)])
