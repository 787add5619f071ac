"""EVA-0 against a loop over single images, and what its bounds and anchors promise."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from doubles import predict_on
from fozo.engine.errors import BundleError
from fozo.engine.methods.eva0 import Eva0
from fozo.engine.model import Outputs
from fozo.engine.registry import METHODS
from fozo.engine.streams.adapter import Adapter
from fozo.testing import StandInNetwork
from stream_doubles import draw_stream

WIDE = {"first_block": 0, "frozen_last_blocks": 0}
VARIANTS = [
    Eva0(perturbation=0.05, rate=0.02),
    Eva0(perturbation=0.05, rate=0.05, clip=0.1, retention=0.9, directions="rademacher", **WIDE),
    Eva0(perturbation=0.1, rate=0.3, largest_rms=0.01, anchor_every=2, loss="entropy", **WIDE),
    Eva0(perturbation=0.1, rate=0.1, anchor_every=0, clip=100.0),
    Eva0(perturbation=0.1, rate=0.1, anchor_every=1, clip=100.0),
]


class Reference:
    """The algorithm image by image, with lists of numbers; only the random draws are NumPy's."""

    def __init__(self, network: StandInNetwork, options: Eva0) -> None:
        self.network, self.options = network, options
        self.rows = list(range(4)) if options.first_block == 0 else [2, 3]
        self.w = [0.0] * (len(self.rows) * 2 * 8)
        self.images = self.steps = 0

    def forward(self, image: Any, values: list[float]) -> list[float]:
        norms = np.zeros((1, 4, 2, 8), np.float32)
        norms[0, self.rows] = np.array(values).reshape(-1, 2, 8)
        return [float(z) for z in self.network(image[None], norms=norms).logits[0]]

    def entropy(self, z: list[float]) -> float:
        powers = [math.exp(value - max(z)) for value in z]
        return -sum(p / sum(powers) * math.log(p / sum(powers)) for p in powers)

    def draw(self, count: int, seed: int) -> list[list[float]]:
        generator = np.random.default_rng([seed, self.steps + 1, 0])
        size, shape = len(self.w), (count, len(self.rows), 2, 8)
        if self.options.directions == "gaussian":
            drawn = generator.standard_normal(shape, np.float32).reshape(count, size).tolist()
        else:
            drawn = (2.0 * generator.integers(0, 2, shape, np.int8) - 1).reshape(count, size).tolist()
        every = self.options.anchor_every
        for index in range(count):
            if every and any(self.w) and (self.images + index) % every == every - 1:
                r = generator.random(shape[1:], np.float32).reshape(size).tolist()
                towards = [-a * b for a, b in zip(r, self.w, strict=True)]
                rms = math.sqrt(sum(v * v for v in towards) / size)
                drawn[index] = [v / rms for v in towards]
        return drawn

    def step(self, images: Any, seed: int) -> list[list[float]]:
        mu, answers = self.options.perturbation, []
        gradient = [0.0] * len(self.w)
        for image, u in zip(images, self.draw(len(images), seed), strict=True):
            plus = self.forward(image, [w + mu * v for w, v in zip(self.w, u, strict=True)])
            minus = self.forward(image, [w - mu * v for w, v in zip(self.w, u, strict=True)])
            answers.append([(a + b) / 2 for a, b in zip(plus, minus, strict=True)])
            if self.options.loss == "scale_free":
                lengths = [math.sqrt(sum(v * v for v in z)) for z in (plus, minus)]
                s = sum(lengths) / 2
                plus, minus = [v * s / lengths[0] for v in plus], [v * s / lengths[1] for v in minus]
            slope = (self.entropy(plus) - self.entropy(minus)) / (2 * mu)
            gradient = [g + slope * v / len(images) for g, v in zip(gradient, u, strict=True)]
        length = math.sqrt(sum(g * g for g in gradient))
        factor = min(1.0, self.options.clip / length)
        w = [
            self.options.retention * old - self.options.rate * factor * g
            for old, g in zip(self.w, gradient, strict=True)
        ]
        rms = math.sqrt(sum(v * v for v in w) / len(w))
        bound = min(1.0, self.options.largest_rms / rms)
        self.w = [float(np.float32(v * bound)) for v in w]
        self.images, self.steps = self.images + len(images), self.steps + 1
        return answers


@pytest.mark.parametrize("options", VARIANTS)
def test_fourteen_batches_are_those_of_the_reference(options: Eva0) -> None:
    network = StandInNetwork()
    adapter, reference = Adapter(network, options, seed=5), Reference(network, options)
    for images in draw_stream():
        expected = reference.step(images, 5)
        np.testing.assert_allclose(adapter.step(images).logits, expected, rtol=2e-4, atol=2e-4)
        state: Any = adapter.state
        np.testing.assert_allclose(state.norms.ravel(), reference.w, rtol=2e-3, atol=2e-5)
    assert state.images == reference.images
    assert max(map(abs, reference.w)) > 1e-3


def test_defaults() -> None:
    assert METHODS["eva0"] == Eva0(
        perturbation=0.001, rate=5e-4, clip=1.0, retention=0.999, largest_rms=0.05, anchor_every=4
    )


class _Louder(StandInNetwork):
    """A network whose logits grow with the sum of the addends, and change in no other way."""

    def __call__(self, images: Any, **tunables: Any) -> Outputs:
        outputs = super().__call__(images)
        growth = np.exp(tunables["norms"].reshape(len(tunables["norms"]), -1).sum(axis=1, keepdims=True))
        return Outputs((outputs.logits * growth).astype(np.float32), outputs.features)


def test_growing_logits_do_not_lower_the_loss() -> None:
    images = draw_stream(1)[0]
    for loss, moves in (("scale_free", False), ("entropy", True)):
        adapter = Adapter(_Louder(), Eva0(perturbation=0.05, rate=1.0, loss=loss, anchor_every=0))
        gradient = adapter.step(images).diagnostics["gradient"]
        assert (gradient > 1e-2) == moves and (gradient < 1e-4) != moves


def test_the_bounds_hold() -> None:
    options = Eva0(perturbation=0.05, rate=10.0, clip=0.5, retention=1.0, largest_rms=0.02, **WIDE)
    adapter = Adapter(StandInNetwork(), options)
    for images in draw_stream(5):
        assert adapter.step(images).diagnostics["size"] <= 0.02 * (1 + 1e-6)
    single = Adapter(StandInNetwork(), Eva0(perturbation=0.05, rate=1.0, clip=0.01, **WIDE))
    single.step(draw_stream(1)[0])
    state: Any = single.state
    assert np.linalg.norm(state.norms) == pytest.approx(0.01, rel=1e-4)


def test_prediction_without_a_step_is_unperturbed() -> None:
    network, options = StandInNetwork(), Eva0(perturbation=0.3)
    state = options.bind(network.info).init(0)
    images = draw_stream(1)[0]
    np.testing.assert_array_equal(predict_on(network, options, state, images).logits, network(images).logits)


def test_batch_norms_are_refused() -> None:
    with pytest.raises(BundleError, match="eva0 perturbs every image on its own"):
        Eva0().bind(StandInNetwork(batch_norms=True).info)
