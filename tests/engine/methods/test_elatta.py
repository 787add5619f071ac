"""ELaTTA against a loop that moves features and asks the head, and what its bound promises."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fozo.engine.errors import BundleError
from fozo.engine.methods.elatta import Elatta
from fozo.engine.registry import METHODS
from fozo.engine.search import cma
from fozo.engine.streams.adapter import Adapter
from fozo.testing import StandInNetwork
from stream_doubles import draw_stream

VARIANTS = [
    Elatta(directions=3, generations=4, covariance="full"),
    Elatta(directions=8, population=5, generations=6, sigma=0.5, bound=0.3),
    Elatta(directions=2, generations=3, covariance="identity", bound=10.0, start="previous"),
    Elatta(generations=2, covariance="diagonal", sigma=1.0),
]


def entropy_of(logits: Any) -> float:
    p = np.exp(logits - logits.max())
    p /= p.sum()
    return float(-sum(value * np.log(value) for value in p if value > 0))


class Reference:
    """One image after the other: features are moved, and the head is asked. CMA-ES has tests of its own."""

    def __init__(self, network: StandInNetwork, options: Elatta, seed: int) -> None:
        self.options, self.seed, self.info = options, seed, network.info
        weight = network.info.head_weight.astype(float)
        centred = weight - weight.mean(axis=0)
        values, vectors = np.linalg.eigh(centred.T @ centred)
        count = min(options.directions, int(np.linalg.matrix_rank(centred)))
        self.v = vectors[:, np.argsort(-values)[:count]]  # [F, k]; their signs are arbitrary
        right = np.linalg.svd(centred, full_matrices=False)[2][:count].T
        assert np.abs(np.abs((self.v * right).sum(axis=0))[: min(count, 5)] - 1).max() < 1e-6
        self.v = right  # the same directions, with the engine's signs
        source = network.info.source
        assert source is not None
        std = source.std[-1].astype(float)
        self.spread = [
            np.sqrt(sum((self.v[i, j] * std[i]) ** 2 for i in range(len(std)))) for j in range(count)
        ]
        self.q = np.zeros(count)

    def head(self, z: Any, q: Any) -> Any:
        moved = z + self.v @ (np.array(self.spread) * q)
        return moved @ self.info.head_weight.astype(float).T + self.info.head_bias

    def step(self, z: Any) -> Any:
        options = self.options
        q = self.q if options.start == "previous" else np.zeros_like(self.q)
        search = replace(cma.start_search(len(q), options.sigma, options.covariance), mean=q)
        best, least = q, entropy_of(self.head(z, q))
        for generation in range(options.generations):
            drawn, losses = [], []
            for candidate in cma.ask(search, self.seed, generation, options.population):
                length = np.sqrt(sum(candidate**2))
                drawn.append(candidate if length <= options.bound else candidate * options.bound / length)
                losses.append(entropy_of(self.head(z, drawn[-1])))
                if losses[-1] < least:
                    best, least = drawn[-1], losses[-1]
            search = cma.tell(search, np.array(drawn), np.array(losses), options.population)
        self.q = best
        return self.head(z, best)


@pytest.mark.parametrize("options", VARIANTS)
def test_fourteen_batches_are_those_of_the_reference(options: Elatta) -> None:
    network, stream = StandInNetwork(), draw_stream()
    adapter, reference = Adapter(network, options, seed=7), Reference(network, options, 7)
    moved = 0.0
    for images in stream:
        outputs = network(images)
        expected = [reference.step(z.astype(float)) for z in outputs.features[:, -1]]
        prediction = adapter.step(images)
        np.testing.assert_allclose(prediction.logits, expected, rtol=1e-3, atol=1e-3)
        moved = max(moved, np.abs(np.array(expected) - outputs.logits).max())
    assert moved > 0.05


def test_defaults() -> None:
    assert METHODS["elatta"] == Elatta(directions=16, population=8, generations=10, bound=1.0, start="zero")
    assert METHODS["elatta"].forwards == 1


def test_entropy_never_rises_and_offsets_are_bounded() -> None:
    network = StandInNetwork()
    adapter = Adapter(network, Elatta(bound=0.5, sigma=1.0))
    for images in draw_stream(4):
        frozen = network(images).logits
        prediction = adapter.step(images)
        assert all(
            entropy_of(after.astype(float)) <= entropy_of(before.astype(float)) + 1e-5
            for after, before in zip(prediction.logits, frozen, strict=True)
        )
        assert 0 < prediction.diagnostics["offset"] <= 0.5 * (1 + 1e-9)
    still = Adapter(network, Elatta(bound=0.0))
    images = draw_stream(1)[0]
    np.testing.assert_allclose(still.step(images).logits, network(images).logits, atol=1e-6)


def test_batches_make_no_difference() -> None:
    network, images = StandInNetwork(texts=True), np.concatenate(draw_stream(3))
    together, single = Adapter(network, Elatta()), Adapter(network, Elatta())
    alone = np.concatenate([single.step(images[i : i + 1]).logits for i in range(len(images))])
    np.testing.assert_allclose(together.step(images).logits, alone, atol=1e-3)


def test_there_are_fewer_directions_than_classes() -> None:
    """Rows of the head about their mean span one dimension less than there are classes."""
    network = StandInNetwork().select([3, 0])
    bound = Elatta(directions=16).bind(network.info)
    assert len(bound.responses) == 1 and np.ptp(bound.responses[0]) > 0.1


def test_source_statistics_are_needed() -> None:
    with pytest.raises(BundleError, match="elatta needs source statistics"):
        Elatta().bind(replace(StandInNetwork().info, source=None))
