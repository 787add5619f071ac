"""Pools and interrupts, and pools called by several threads."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from doubles import state_bits
from fozo.engine.errors import InputError
from fozo.engine.interface.method import Step
from fozo.engine.interface.request import Request
from fozo.engine.methods.no_adapt import BoundNoAdapt
from fozo.engine.model import ImageArray, Tunables
from fozo.engine.registry import Fozo, State
from fozo.engine.runtime.network import Network
from fozo.engine.streams.adapter import Adapter
from fozo.engine.streams.pool import Pool
from pool_doubles import Watched, assert_unchanged_and_usable, one_of_three, streams_running

MakeImages = Callable[..., ImageArray]


@pytest.fixture(scope="module")
def network(bundle_path: Path) -> Iterator[Network]:
    with Network.open(bundle_path, workers=2, micro_batch=3) as opened:
        yield opened


@pytest.fixture
def watched(network: Network) -> Watched:
    return Watched(network)


@pytest.fixture(autouse=True)
def no_threads_left() -> Iterator[None]:
    yield
    assert not streams_running()


def interrupt() -> None:
    """Do what Ctrl-C does."""
    os.kill(os.getpid(), signal.SIGINT)


needs_signals = pytest.mark.skipif(os.name != "posix", reason="signals are not sent like this here")


@needs_signals
@pytest.mark.parametrize("call", [1, 2, 3])
def test_interrupt_while_the_network_runs(watched: Watched, random_images: MakeImages, call: int) -> None:
    pool, images = Pool(watched.view), random_images(2)
    streams = one_of_three(pool, "shift")
    streams["d"] = pool.open("d", "fozo", output="clean")
    before = [state_bits(stream.state) for stream in streams.values()]

    def interrupt_in(images: ImageArray, tunables: Sequence[Tunables]) -> None:
        if len(watched.calls) == call:
            interrupt()

    watched.before = interrupt_in
    with pytest.raises(KeyboardInterrupt):
        pool.step(dict.fromkeys(streams, images))
    assert len(watched.calls) == call
    watched.before = lambda images, tunables: None
    assert_unchanged_and_usable(pool, streams, before, images)


@needs_signals
def test_interrupt_while_methods_compute(
    network: Network, random_images: MakeImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, images = Pool(network), random_images(2)
    streams = one_of_three(pool, "no_adapt")
    before = [state_bits(stream.state) for stream in streams.values()]
    original = BoundNoAdapt.step

    def step(self: BoundNoAdapt, state: State, images: ImageArray) -> Step[State]:
        interrupt()
        time.sleep(0.2)
        yield Request(images)
        pytest.fail("the step went on")

    with monkeypatch.context() as patch:
        patch.setattr(BoundNoAdapt, "step", step)
        with pytest.raises(KeyboardInterrupt):
            pool.step(dict.fromkeys("abc", images))
    assert BoundNoAdapt.step is original
    assert_unchanged_and_usable(pool, streams, before, images)


def test_interrupt_while_the_streams_advance(
    network: Network, random_images: MakeImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, images = Pool(network), random_images(2)
    streams = one_of_three(pool, "shift")
    before = [state_bits(stream.state) for stream in streams.values()]
    advanced: list[str] = []

    def setattr_(self: Adapter, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
        if name == "_state":
            advanced.append(name)
            if len(advanced) == 2:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(type(streams["a"]), "__setattr__", setattr_, raising=False)
        with pytest.raises(KeyboardInterrupt):
            pool.step(dict.fromkeys("abc", images))
    assert len(advanced) > 2
    assert_unchanged_and_usable(pool, streams, before, images)


def test_steps_of_several_threads_take_turns(watched: Watched, random_images: MakeImages) -> None:
    """Steps of the pool, of its streams alone, openings and closings, all at once."""
    pool, turns = Pool(watched.view), 6
    for key in "abcd":
        pool.open(key, "fozo", seed=ord(key))
    shared = pool.open("shared", "fozo", seed=1)
    inside: list[int] = []
    most: list[int] = []

    def slowly(images: ImageArray, tunables: Sequence[Tunables]) -> None:
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.002)
        inside.pop()

    def step(keys: str) -> list[Any]:
        return [
            pool.step({**{key: random_images(2, seed=i) for key in keys}, "shared": random_images(1)})
            for i in range(turns)
        ]

    def alone() -> None:
        for _ in range(turns):
            shared.step(random_images(1))

    def come_and_go() -> None:
        for i in range(turns):
            pool.open(i, "shift")
            pool.step({i: random_images(1)})
            pool.close(i)

    watched.before = slowly
    with ThreadPoolExecutor(4) as threads:
        work = [threads.submit(step, keys) for keys in ("ab", "cd")]
        work += [threads.submit(alone), threads.submit(come_and_go)]
        results = [each.result() for each in work]
    assert max(most) == 1
    assert shared.state.step == 3 * turns
    watched.before = lambda images, tunables: None
    expected = Adapter(watched.view, Fozo(), seed=1)
    for _ in range(3 * turns):  # whoever's turn it was, these were its batches
        expected.step(random_images(1))
    assert state_bits(shared.state) == state_bits(expected.state)
    for keys, found in zip(("ab", "cd"), results[:2], strict=True):
        for key in keys:
            adapter = Adapter(watched.view, Fozo(), seed=ord(key))
            for i in range(turns):
                assert state_bits(found[i][key]) == state_bits(adapter.step(random_images(2, seed=i)))
    with pytest.raises(InputError, match="open are: 'a', 'b', 'c', 'd', 'shared'"):
        pool.close(0)


@pytest.mark.parametrize("action", ["step", "reset", "save", "load", "close", "open"])
def test_what_is_called_during_a_step_waits(
    watched: Watched, random_images: MakeImages, tmp_path: Path, action: str
) -> None:
    pool = Pool(watched.view)
    stream = pool.open("a", "shift")
    stream.save(tmp_path / "start.npz")
    actions: dict[str, Callable[[], object]] = {
        "step": lambda: stream.step(random_images(1)),
        "reset": stream.reset,
        "save": lambda: stream.save(tmp_path / "state.npz"),
        "load": lambda: stream.load(tmp_path / "start.npz"),
        "close": lambda: pool.close("a"),
        "open": lambda: pool.open("b", "shift"),
    }
    started, may_end, done = threading.Event(), threading.Event(), threading.Event()

    def wait(images: ImageArray, tunables: Sequence[Tunables]) -> None:
        started.set()
        assert may_end.wait(10)

    def act() -> None:
        actions[action]()
        done.set()

    watched.before = wait
    with ThreadPoolExecutor(2) as threads:
        try:
            stepping = threads.submit(pool.step, {"a": random_images(1)})
            assert started.wait(10)
            acting = threads.submit(act)
            assert not done.wait(0.05)
        finally:
            may_end.set()
        stepping.result()
        acting.result()
    assert stream.state.step == {"step": 2, "reset": 0, "load": 0}.get(action, 1)
