"""The guard: whatever the network answers, a stream goes on, learns nothing bad, and says what happened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from doubles import fallback_step_on, step_on
from fozo.engine.interface.method import Prediction
from fozo.engine.model import FloatArray, ImageArray, Outputs, SourceStatistics
from fozo.engine.registry import METHODS, AnyMethod, Fozo, Shift
from fozo.engine.state import State
from fozo.engine.streams.adapter import Adapter

StandIn = Callable[..., Any]

LEARNING: dict[str, AnyMethod] = {
    "shift": Shift(),
    "shift-inclusive": Shift(update="inclusive"),
    "shift-origin": Shift(target="origin"),
    "fozo": Fozo(),
    "fozo-samples": Fozo(samples=3),
    "fozo-mean": Fozo(output="mean"),
    "fozo-clean": Fozo(output="clean"),
    "fozo-clean-none": Fozo(output="clean", shift="none"),
    "fozo-inclusive": Fozo(shift_update="inclusive"),
    "fozo-no-prompts": Fozo(prompts=0),
    "fozo-no-discrepancy": Fozo(discrepancy_weight=0.0),
    "fozo-l2": Fozo(loss_norm="l2_groups", loss_scale="per_image"),
}


def images(count: int, seed: int = 0) -> ImageArray:
    made: ImageArray = np.random.default_rng(seed).integers(0, 256, (count, 2, 2, 3), dtype=np.uint8)
    made.setflags(write=False)
    return made


class Sick:
    """A healthy network whose answers can be spoilt: `spoil(logits, features)` acts in place.

    `calls` chooses the candidates, counted since `spoil` was set, that are spoilt; None spoils all.
    """

    def __init__(self, network: Any) -> None:
        self.network, self.info = network, network.info
        self.spoil: Callable[[FloatArray, FloatArray], None] | None = None
        self.calls: set[int] | None = None
        self.seen = 0

    def fall_ill(
        self, spoil: Callable[[FloatArray, FloatArray], None], calls: set[int] | None = None
    ) -> None:
        self.spoil, self.calls, self.seen = spoil, calls, 0

    def recover(self) -> None:
        self.spoil = None

    def __call__(self, images: ImageArray, **tunables: FloatArray) -> Outputs:
        healthy = self.network(images, **tunables)
        logits, features = healthy.logits.copy(), healthy.features.copy()
        if self.spoil is not None and (self.calls is None or self.seen in self.calls):
            self.spoil(logits, features)
        self.seen += 1
        return Outputs(logits, features)

    def candidates(self, images: ImageArray, tunables: Any) -> list[Outputs]:
        return [self(images, **each) for each in tunables]


def all_nan(logits: FloatArray, features: FloatArray) -> None:
    logits[:] = np.nan
    features[:] = np.nan


def infinite_logits(logits: FloatArray, features: FloatArray) -> None:
    logits[:, 0] = np.inf


def some_images(logits: FloatArray, features: FloatArray) -> None:
    logits[1] = np.nan
    features[1] = np.nan
    logits[3, 2] = -np.inf


def nan_features(logits: FloatArray, features: FloatArray) -> None:
    features[:] = np.nan


def infinite_last_feature(logits: FloatArray, features: FloatArray) -> None:
    features[0, -1, 0] = np.inf


def same(left: State, right: State) -> bool:
    """Every field bit for bit, and of the same type."""
    assert type(left) is type(right)
    pairs = [(getattr(left, f.name), getattr(right, f.name)) for f in fields(left)]
    return all(
        a.tobytes() == b.tobytes() if isinstance(a, np.ndarray) else type(a) is type(b) and a == b
        for a, b in pairs
    )


def started(stand_in: StandIn, method: AnyMethod) -> tuple[Adapter, Sick]:
    """Return an adapter that has already learnt from three good batches."""
    network = Sick(stand_in())
    adapter = Adapter(network, method, seed=4)
    for batch in range(3):
        assert not adapter.step(images(6, batch)).fallback
    return adapter, network


@pytest.mark.parametrize(
    "spoil", [all_nan, infinite_logits, some_images, nan_features, infinite_last_feature]
)
@pytest.mark.parametrize("name", LEARNING)
def test_nothing_is_learnt_from_a_bad_batch(
    stand_in: StandIn, name: str, spoil: Callable[[FloatArray, FloatArray], None]
) -> None:
    adapter, network = started(stand_in, LEARNING[name])
    before = adapter.state
    network.fall_ill(spoil)
    frozen = network(images(6, 50)).logits
    network.network.forwards = 0
    prediction = adapter.step(images(6, 50))
    assert prediction.fallback
    assert prediction.forwards == network.network.forwards == adapter.method.forwards + 1
    assert adapter.frozen_batches == 1
    assert prediction.loss is None
    readable = np.isfinite(frozen).all(axis=1)
    assert np.array_equal(prediction.logits[readable], frozen[readable])
    assert (prediction.logits[~readable] == 0).all()
    assert prediction.diagnostics["nonfinite_images"] == (~readable).sum()
    assert np.isfinite(prediction.logits).all()
    np.testing.assert_allclose(prediction.probabilities.sum(axis=1), 1)
    assert adapter.state.step == before.step + 1
    assert same(replace(adapter.state, step=before.step), before)


@pytest.mark.parametrize("name", LEARNING)
def test_the_next_good_batch_works_and_adapts(stand_in: StandIn, name: str) -> None:
    adapter, network = started(stand_in, LEARNING[name])
    network.fall_ill(all_nan)
    for batch in range(3):
        assert adapter.step(images(6, batch)).fallback
    network.recover()
    before = adapter.state
    prediction = adapter.step(images(6, 60))
    assert not prediction.fallback
    assert adapter.frozen_batches == 3
    assert np.isfinite(prediction.logits).all()
    assert adapter.state.step == 7
    assert not same(replace(adapter.state, step=before.step), before)
    adapter.reset()
    assert adapter.frozen_batches == 0


@pytest.mark.parametrize("name", LEARNING)
def test_a_bad_first_batch_leaves_the_initial_state(stand_in: StandIn, name: str) -> None:
    network = Sick(stand_in())
    adapter = Adapter(network, LEARNING[name], seed=4)
    network.fall_ill(all_nan)
    assert adapter.step(images(6)).fallback
    fresh = Adapter(network, LEARNING[name], seed=4).state
    assert same(adapter.state, replace(fresh, step=1))
    network.recover()
    assert not adapter.step(images(6)).fallback


@pytest.mark.parametrize("candidate", [0, 1, 2, 3])
@pytest.mark.parametrize("spoil", [all_nan, infinite_logits, nan_features])
@pytest.mark.parametrize("method", [Fozo(samples=2), Fozo(samples=2, output="clean", shift="none")])
def test_one_bad_candidate_is_enough(
    stand_in: StandIn,
    method: Fozo,
    spoil: Callable[[FloatArray, FloatArray], None],
    candidate: int,
) -> None:
    adapter, network = started(stand_in, method)
    before = adapter.state
    network.fall_ill(spoil, {candidate})
    prediction = adapter.step(images(6, 50))
    assert prediction.fallback
    assert np.array_equal(prediction.logits, network.network(images(6, 50)).logits)
    assert prediction.diagnostics["nonfinite_images"] == 0
    assert same(adapter.state, replace(before, step=before.step + 1))


def test_an_infinite_loss(stand_in: StandIn) -> None:
    """Every answer is finite, and so far from the source that the loss overflows."""
    network = stand_in()
    source = network.info.source
    network.info = replace(
        network.info, source=SourceStatistics(source.mean, source.std + 1e200, source.images)
    )
    adapter = Adapter(network, Fozo(prompts=0))
    prediction = adapter.step(images(6))
    assert prediction.fallback
    assert np.array_equal(prediction.logits, network(images(6)).logits)
    assert adapter.state.step == 1
    assert same(adapter.state, replace(Adapter(network, Fozo(prompts=0)).state, step=1))


@pytest.mark.parametrize("spoil", [all_nan, infinite_logits, some_images])
def test_the_frozen_network_too(stand_in: StandIn, spoil: Callable[[FloatArray, FloatArray], None]) -> None:
    network = Sick(stand_in())
    adapter = Adapter(network, METHODS["no_adapt"])
    network.fall_ill(spoil)
    prediction = adapter.step(images(6))
    assert prediction.fallback and adapter.frozen_batches == 1
    assert np.isfinite(prediction.logits).all()
    assert prediction.diagnostics["nonfinite_images"] > 0


def test_no_warnings(stand_in: StandIn, recwarn: pytest.WarningsRecorder) -> None:
    for method in LEARNING.values():
        adapter, network = started(stand_in, method)
        for spoil in (all_nan, infinite_logits, some_images, infinite_last_feature):
            network.fall_ill(spoil)
            adapter.step(images(6))
    assert not recwarn.list


def test_directions_go_on_after_a_bad_batch(stand_in: StandIn) -> None:
    """The step counts, so the batch after a bad one is not probed with the directions of the bad one."""
    adapter, network = started(stand_in, Fozo())
    smooth, other = started(stand_in, Fozo())
    network.fall_ill(all_nan)
    adapter.step(images(6))
    network.recover()
    after_bad, directly = adapter.step(images(6, 9)), smooth.step(images(6, 9))
    assert after_bad.diagnostics["slope"] != directly.diagnostics["slope"]
    assert other.seen == 4 * 2


def test_a_good_step_passes_through(stand_in: StandIn) -> None:
    network, method = stand_in(), Fozo()
    state = method.bind(network.info).init(0)
    alone, expected = step_on(network, method, state, images(6))
    guarded, found = fallback_step_on(network, method, state, images(6))
    assert isinstance(guarded, Prediction) and not guarded.fallback
    assert guarded.logits.tobytes() == alone.logits.tobytes()
    assert guarded.loss == alone.loss
    assert same(found, expected)


def test_errors_are_not_swallowed(stand_in: StandIn) -> None:
    adapter, network = started(stand_in, Fozo())
    before = adapter.state

    def fail(logits: FloatArray, features: FloatArray) -> None:
        raise RuntimeError("out of order")

    network.fall_ill(fail)
    with pytest.raises(RuntimeError, match="out of order"):
        adapter.step(images(6))
    assert adapter.state is before
