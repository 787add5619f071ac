"""Interval updates: every image is predicted at once, and the method sees them in groups."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doubles import VIT_METHODS, lend_network, predict_on, state_bits, step_on
from fozo.engine.errors import InputError
from fozo.engine.model import FloatArray, ImageArray, Outputs
from fozo.engine.registry import METHODS, Fozo, Interval, Shift, get_options, method
from fozo.engine.runtime.network import Network
from fozo.engine.streams.adapter import Adapter

StandIn = Callable[..., Any]


def images(count: int, seed: int = 0) -> ImageArray:
    made: ImageArray = np.random.default_rng(seed).integers(0, 256, (count, 2, 2, 3), dtype=np.uint8)
    made.setflags(write=False)
    return made


@pytest.mark.parametrize("inner", [Fozo(), Shift()], ids=["fozo", "shift"])
@pytest.mark.parametrize("sizes", [(1,) * 9, (2, 1, 3, 2, 1, 4), (5, 5), (9, 2, 3)])
def test_equals_the_method_stepped_by_hand(stand_in: StandIn, inner: Any, sizes: tuple[int, ...]) -> None:
    network = stand_in()
    wrapped = Interval(inner, interval=4)
    state = wrapped.bind(network.info).init(7)
    by_hand, kept = inner.bind(network.info).init(7), []
    for index, size in enumerate(sizes):
        batch = images(size, index)
        expected = predict_on(network, inner, by_hand, batch).logits
        prediction, state = step_on(network, wrapped, state, batch)
        assert prediction.logits.tobytes() == expected.tobytes()
        kept.append(batch)
        if updated := sum(map(len, kept)) >= 4:
            _, by_hand = step_on(network, inner, by_hand, np.concatenate(kept))
            kept = []
        assert prediction.diagnostics["updated"] == updated
        assert len(state.images) == sum(map(len, kept))
        assert state_bits(state.inner) == state_bits(by_hand)
        assert state.step == index + 1
    assert by_hand.step > 0


def test_forwards_are_those_of_the_images(stand_in: StandIn) -> None:
    """One image at a time pays at the end of the interval for all of it."""
    network, wrapped = stand_in(), Interval(Fozo(), interval=4)
    state, spent = wrapped.bind(network.info).init(0), []
    for index in range(8):
        prediction, state = step_on(network, wrapped, state, images(1, index))
        spent.append(prediction.forwards)
    assert spent == [1, 1, 1, 1 + 2 * 4] * 2
    assert sum(spent) == 8 * wrapped.forwards
    prediction, _ = step_on(network, wrapped, state, images(6))
    assert prediction.forwards == wrapped.forwards == 3
    prediction, state = step_on(network, wrapped, state, images(3))
    prediction, _ = step_on(network, wrapped, state, images(2))
    assert prediction.forwards == 1 + 5  # 2 · 5 / 2
    prediction, _ = step_on(network, wrapped, state, images(4))
    assert prediction.forwards == 1 + 4  # 2 · 7 / 4, rounded up


def test_the_callers_images_may_be_filled_again(stand_in: StandIn) -> None:
    network, wrapped = stand_in(), Interval(Fozo(), interval=4)
    left, right = wrapped.bind(network.info).init(0), wrapped.bind(network.info).init(0)
    camera = np.empty((2, 2, 2, 3), np.uint8)
    for index in range(4):
        camera[:] = images(2, index)
        _, left = step_on(network, wrapped, left, camera)
        camera[:] = 0
        _, right = step_on(network, wrapped, right, images(2, index))
    assert state_bits(left) == state_bits(right)


def test_an_empty_buffer_holds_no_images(stand_in: StandIn) -> None:
    wrapped, network = Interval(Shift(), interval=2), stand_in()
    _, state = step_on(network, wrapped, wrapped.bind(network.info).init(0), images(3))
    assert state.images.base is None and state.images.nbytes == 0


class _Sick:
    """A network that answers steps over more than two images with infinities, for a while."""

    def __init__(self, network: Any) -> None:
        self.network, self.info, self.ill = network, network.info, True

    def __call__(self, batch: ImageArray, **tunables: FloatArray) -> Outputs:
        outputs = self.network(batch, **tunables)
        if self.ill and len(batch) > 2:
            outputs.features[:] = np.inf
        return outputs

    def candidates(self, batch: ImageArray, tunables: Any) -> list[Outputs]:
        return [self(batch, **each) for each in tunables]


def test_images_that_break_a_step_are_not_kept(stand_in: StandIn) -> None:
    network = _Sick(stand_in())
    adapter = Adapter(network, Interval(Fozo(), interval=4))
    start: Any = adapter.state
    for index in range(2):
        prediction = adapter.step(images(2, index))
        assert np.isfinite(prediction.logits).all() and not prediction.frozen
    assert prediction.diagnostics["updated"] == 0
    state: Any = adapter.state
    assert len(state.images) == 0
    assert state_bits(state.inner) == state_bits(replace(start.inner, step=1))
    network.ill = False
    assert [adapter.step(images(2, index)).diagnostics["updated"] for index in range(2)] == [0, 1]


@pytest.fixture(scope="module")
def network(bundle_path: Path) -> Iterator[Network]:
    """Open a real one."""
    with Network.open(bundle_path, gradients=True, workers=1) as opened:
        yield opened


@pytest.fixture
def method_network(network: Network, bundle_path: Path, name: str) -> Iterator[Network]:
    """Open one with activations for a method that needs them."""
    with lend_network(network, bundle_path, METHODS[name]) as lent:
        yield lent


@pytest.mark.parametrize("name", VIT_METHODS)
@pytest.mark.parametrize("size", [1, 3])
def test_every_method_resumes_within_an_interval(
    method_network: Network, random_images: Callable[..., ImageArray], tmp_path: Path, name: str, size: int
) -> None:
    configured = method(name, interval=4)
    whole, stopped, resumed = (Adapter(method_network, configured, seed=3) for _ in range(3))
    start = state_bits(whole.state)
    stream = [random_images(size, seed=index) for index in range(7)]
    expected = [whole.step(batch) for batch in stream]
    for batch in stream[:5]:
        stopped.step(batch)
    assert len(stopped.state.images) > 0  # type: ignore[attr-defined]
    stopped.save(tmp_path / "state.npz")
    resumed.load(tmp_path / "state.npz")
    assert state_bits(resumed.state) == state_bits(stopped.state)
    for batch, prediction in zip(stream[5:], expected[5:], strict=True):
        assert resumed.step(batch).logits.tobytes() == prediction.logits.tobytes()
    assert state_bits(resumed.state) == state_bits(whole.state)
    assert all(not prediction.frozen and np.isfinite(prediction.logits).all() for prediction in expected)
    whole.reset()
    assert state_bits(whole.state) == start


def test_as_an_option_of_every_method() -> None:
    configured = method("fozo", interval="16", samples="2")
    assert configured == Interval(Fozo(samples=2), interval=16)
    assert configured.name == "fozo"
    assert get_options(configured) == {**get_options(Fozo(samples=2)), "interval": 16}
    assert method("fozo", interval=0) == method("fozo", interval="0") == Fozo()
    for value in (1, -1, "1", "x", 2.5, True, None):
        with pytest.raises(InputError, match="interval must be int ≥ 2"):
            method("fozo", interval=value)
    with pytest.raises(
        InputError, match=r"no option 'intervall'; it has: .*samples.*every method has: interval"
    ):
        method("fozo", intervall=4)
