"""PACE against a loop with explicit Hadamard matrices and lists of candidates, over several domains."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from doubles import step_on
from fozo.engine.errors import BundleError
from fozo.engine.methods import pace as module
from fozo.engine.methods.pace import Pace
from fozo.engine.registry import METHODS
from fozo.engine.search import cma
from fozo.engine.search.fastfood import compute_projection, draw_fastfood, project
from fozo.engine.streams.adapter import Adapter
from fozo.testing import StandInNetwork, draw_images

SMALL: dict[str, Any] = {"dimension": 6, "population": 5, "domain_min_batch": 4}
VARIANTS = [
    Pace(**SMALL, settle_below=0.0, domain_threshold=0.2),
    Pace(**SMALL, settle_below=0.5, domain_threshold=0.2, bank_limit=2, bank_choices=2, restart="best"),
    Pace(**SMALL, settle_below=0.7, domain_threshold=0.2, shift="origin", sigma=0.3, covariance="full"),
    Pace(
        dimension=2304,
        population=4,
        domain_threshold=1e9,
        domain_min_batch=4,
        shift="none",
        first_block=0,
        frozen_last_blocks=0,
    ),
]


def draw_domains() -> list[Any]:
    """Return 18 batches of three domains in turn: dark, bright, and with strong contrast."""
    stream = []
    for index in range(18):
        images = draw_images(8, seed=index).astype(float)
        kind = (0, 1, 0, 2, 1, 2)[index // 3]
        images = (images * 0.3, 200 + images * 0.2, np.where(images > 128, 250, 3))[kind]
        stream.append(images.astype(np.uint8))
    return stream


def hadamard(size: int) -> Any:
    matrix = np.ones((1, 1))
    while len(matrix) < size:
        matrix = np.kron(np.array([[1, 1], [1, -1]]), matrix)
    return matrix


class Reference:
    """The method with plain lists; CMA-ES itself has tests of its own."""

    def __init__(self, network: StandInNetwork, options: Pace, seed: int) -> None:
        self.network, self.options, self.seed = network, options, seed
        self.rows = slice(0, 4) if options.first_block == 0 else slice(2, 4)
        self.values = (self.rows.stop - self.rows.start) * 16
        self.p = min(options.dimension, self.values)
        generator = np.random.default_rng(options.projection_seed)
        signs = 1.0 - 2.0 * generator.integers(0, 2, self.values)
        order = generator.permutation(self.values)
        gains = 1.0 - 2.0 * generator.integers(0, 2, self.values)
        h = hadamard(self.values)
        full = h @ np.diag(gains) @ np.eye(self.values)[order] @ h @ np.diag(signs)
        self.matrix = full[:, : self.p] / np.sqrt(self.values * sum(gains**2))
        self.bank: list[Any] = []
        self.embedding: Any = None
        self.t = 0
        self.changes: list[int] = []
        self.winners: list[bool] = []  # whether no change was the best of a bank
        self.begin()

    def begin(self) -> None:
        self.search = cma.start_search(self.p, self.options.sigma, self.options.covariance)
        self.best = np.zeros(self.p)
        self.settled, self.fresh, self.h = False, False, None

    def forward(self, images: Any, v: Any) -> tuple[float, Any, Any]:
        norms = np.zeros((1, 4, 2, 8), np.float32)
        norms[0, self.rows] = (self.matrix @ v).reshape(-1, 2, 8)
        outputs = self.network(images, norms=norms)
        z, f = outputs.logits.astype(float), outputs.features.astype(float)
        source = self.network.info.source
        assert source is not None
        distance = ((f.mean(0) - source.mean) ** 2).sum() + ((f.std(0, ddof=1) - source.std) ** 2).sum()
        p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
        return 0.4 * distance * len(images) / 64 - (p * np.log(p)).sum(), f[:, -1].mean(0), z

    def offset(self, h: Any) -> Any:
        if h is None or self.options.shift == "none":
            return 0
        source = self.network.info.source
        assert source is not None
        target = source.mean[-1] if self.options.shift == "source_mean" else 0
        return self.network.info.head_weight @ (target - h)

    def step(self, images: Any) -> tuple[Any, int]:
        was_settled, h = self.settled, self.h
        if self.settled:
            _, mean, z = self.forward(images, self.search.mean)
            forwards = 1
        else:
            z, mean, forwards = self.evolve(images)
        self.h = mean if h is None else 0.9 * h + 0.1 * mean
        self.watch(images, was_settled)
        self.t += 1
        return z + self.offset(h), forwards

    def evolve(self, images: Any) -> tuple[Any, Any, int]:
        options = self.options
        tried: list[Any] = []
        if self.fresh:
            tried = [*self.bank, np.zeros(self.p)]
            losses = [self.forward(images, v)[0] for v in tried]
            order = sorted(range(len(tried)), key=lambda i: losses[i])[: options.bank_choices]
            self.winners.append(order[0] == len(self.bank))
            if options.restart == "best":
                self.search = replace(self.search, mean=tried[order[0]])
            points = list(cma.ask(self.search, self.seed, self.t, options.population))
            for slot, index in enumerate(order):
                points[slot] = tried[index]
        else:
            points = [*cma.ask(self.search, self.seed, self.t, options.population), self.best]
        results = [self.forward(images, v) for v in points]
        losses = [loss for loss, _, _ in results]
        index = losses.index(min(losses))
        told = cma.tell(self.search, np.array(points), np.array(losses), options.population)
        length = np.linalg.norm(self.search.mean)
        self.settled = bool(
            length and np.linalg.norm(told.mean - self.search.mean) / length < options.settle_below
        )
        self.search, self.best, self.fresh = told, points[index], False
        return results[index][2], np.mean([m for _, m, _ in results], axis=0), len(tried) + len(points)

    def watch(self, images: Any, settled: bool) -> None:
        pixels = images.reshape(len(images), -1, 3) / 255
        now = np.stack([pixels.mean((0, 1)), pixels.var((0, 1))])
        if self.embedding is None:
            self.embedding = now
            return
        (m1, v1), (m2, v2) = self.embedding, now
        gap = (m1 - m2) ** 2
        divergence = ((v1 + gap) / (2 * (v2 + 1e-8)) + (v2 + gap) / (2 * (v1 + 1e-8)) - 1).mean()
        if divergence > self.options.domain_threshold:
            self.changes.append(self.t)
            self.bank.append(self.search.mean)
            if len(self.bank) > self.options.bank_limit:
                rows = [v / max(np.linalg.norm(v), 1e-12) for v in self.bank]
                sums = [sum(a @ b for b in rows) - a @ a for a in rows]
                del self.bank[sums.index(max(sums))]
            self.embedding = now
            self.begin()
            self.fresh = True
        elif not settled:
            self.embedding = 0.8 * self.embedding + 0.2 * now


def compare_states(state: Any, reference: Reference) -> None:
    assert state.settled == reference.settled and state.tries_bank == reference.fresh
    assert len(state.bank) == len(reference.bank)
    if reference.bank:
        np.testing.assert_allclose(state.bank, reference.bank, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(state.search.mean, reference.search.mean, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(state.domain.statistics, reference.embedding, rtol=1e-4)
    assert (state.center is None) == (reference.h is None)
    if reference.h is not None:
        np.testing.assert_allclose(state.center, reference.h, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("options", VARIANTS)
def test_eighteen_batches_are_those_of_the_reference(options: Pace) -> None:
    network = StandInNetwork()
    adapter, reference = Adapter(network, options, seed=4), Reference(network, options, 4)
    counts = []
    for images in draw_domains():
        prediction, (expected, forwards) = adapter.step(images), reference.step(images)
        np.testing.assert_allclose(prediction.logits, expected, rtol=1e-3, atol=1e-3)
        assert prediction.forwards == forwards and not prediction.fallback
        compare_states(adapter.state, reference)
        counts.append(forwards)
    if options.domain_threshold < 1:
        assert reference.changes == [3, 6, 9, 12, 15]
        assert len(reference.bank) == min(5, options.bank_limit)
    assert (1 in counts) == (options.settle_below > 0.1)


@pytest.mark.parametrize("threshold", [1e9, 0.2])
def test_a_settled_search_goes_on_centring_features_but_keeps_its_domain(threshold: float) -> None:
    """Ten batches that grow brighter, then three dark ones, which are another domain if any is."""
    network = StandInNetwork()
    options = Pace(**SMALL, settle_below=0.9, domain_threshold=threshold, sigma=0.3)
    adapter, reference = Adapter(network, options, seed=1), Reference(network, options, 1)
    counts = []
    for index in range(13):
        images = draw_images(8, seed=index) * 0.3 + (100 + index if index < 10 else 0)
        images = images.astype(np.uint8)
        before: Any = adapter.state
        prediction, (expected, forwards) = adapter.step(images), reference.step(images)
        np.testing.assert_allclose(prediction.logits, expected, rtol=1e-3, atol=1e-3)
        compare_states(adapter.state, reference)
        counts.append(forwards)
        after: Any = adapter.state
        if before.settled and after.settled:
            assert not np.array_equal(before.center, after.center)
            np.testing.assert_allclose(before.domain.statistics, after.domain.statistics, rtol=1e-12)
    assert counts[4:10] == [1] * 6
    assert reference.changes == ([] if threshold > 1 else [10])


def test_no_change_may_win_over_the_bank() -> None:
    """If the means of the bank are worse than none, the search begins at none."""
    network = StandInNetwork()
    options = Pace(**SMALL, settle_below=0.0, domain_threshold=1e9, restart="best")
    reference = Reference(network, options, 2)
    stream = draw_domains()[:3]
    losses = [reference.forward(stream[0], v)[0] for v in (np.zeros(6), *np.eye(6), *-np.eye(6))]
    bank = np.vstack([np.eye(6), -np.eye(6)])[np.array(losses[1:]) > losses[0]]
    assert len(bank)
    state = replace(options.bind(network.info).init(2), bank=bank, tries_bank=True)
    reference.bank, reference.fresh = list(bank), True
    for images in stream:
        (prediction, state), (expected, forwards) = (
            step_on(network, options, state, images),
            reference.step(images),
        )
        np.testing.assert_allclose(prediction.logits, expected, rtol=1e-3, atol=1e-3)
        assert prediction.forwards == forwards
        compare_states(state, reference)
    assert reference.winners == [True]


def test_defaults() -> None:
    assert METHODS["pace"] == Pace(
        dimension=2304,
        population=27,
        sigma=0.05,
        settle_below=0.045,
        domain_threshold=0.03,
        bank_limit=30,
        bank_choices=4,
        restart="origin",
    )
    assert METHODS["pace"].forwards == 28


def test_a_projection_without_a_matrix_is_that_of_the_matrix() -> None:
    fastfood = draw_fastfood(np.random.default_rng(1), 100)
    rows = np.random.default_rng(2).normal(size=(4, 30))
    np.testing.assert_allclose(
        project(fastfood, rows, 100), rows @ compute_projection(fastfood, 30, 100).T, rtol=1e-10
    )
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    wide = draw_fastfood(np.random.default_rng(1), 24_576)
    np.testing.assert_allclose(np.linalg.norm(project(wide, units, 24_576), axis=1), 1, atol=0.02)


def test_the_most_similar_entry_is_found() -> None:
    bank = np.array([[1.0, 0, 0], [0.9, 0.1, 0], [0, 0, 1.0], [0.8, 0.3, 0.1]])
    assert module._find_most_similar(bank) == 3  # sums of cosines: 1.92, 1.96, 0.12 and 2.01
    assert module._find_most_similar(np.array([[1.0, 0], [0, 1.0], [1.0, 1.0]])) == 2


def test_what_is_missing_is_named() -> None:
    info = StandInNetwork().info
    with pytest.raises(BundleError, match="pace needs source statistics"):
        Pace().bind(replace(info, source=None))
    with pytest.raises(BundleError, match="pace tunes norms"):
        Pace().bind(replace(info, tunables=("prompts",)))
