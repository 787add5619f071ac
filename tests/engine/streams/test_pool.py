"""Many streams on one network: each gets, to the bit, what an adapter of its own would give it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doubles import VIT_METHODS, list_needs, state_bits
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.errors import BundleError, ComputeError, InputError, StateError
from fozo.engine.interface.method import Step
from fozo.engine.interface.request import Request
from fozo.engine.methods.no_adapt import BoundNoAdapt
from fozo.engine.methods.shift import BoundShift
from fozo.engine.model import ImageArray, Outputs, Tunables
from fozo.engine.registry import METHODS, Fozo, State, method
from fozo.engine.runtime.network import Network
from fozo.engine.streams.adapter import Adapter
from fozo.engine.streams.pool import Pool
from pool_doubles import Watched, assert_unchanged_and_usable, one_of_three, streams_running

MakeImages = Callable[..., ImageArray]
Batches = dict[Any, ImageArray]


@pytest.fixture(scope="module")
def network(bundle_path: Path) -> Iterator[Network]:
    with Network.open(bundle_path, workers=2, micro_batch=3) as opened:
        yield opened


@pytest.fixture(params=["fp32", "int8"])
def open_either(request: pytest.FixtureRequest, int8_bundle_path: Path) -> Callable[..., Network]:
    """Return a function that opens a network: `open_either(gradients=False)`."""
    return partial(Network.open, int8_bundle_path, request.param, workers=2, micro_batch=2)


@pytest.fixture
def watched(network: Network) -> Watched:
    return Watched(network)


@pytest.fixture(autouse=True)
def no_threads_left() -> Iterator[None]:
    yield
    assert not streams_running()


class Pair:
    """A pool, and beside it an adapter of its own for each stream, which must stay the same."""

    def __init__(self, network: Network) -> None:
        self.pool, self.network = Pool(network), network
        self.inside: dict[Any, Adapter] = {}
        self.alone: dict[Any, Adapter] = {}

    def open(self, key: Any, name: str, seed: int = 0, **options: object) -> None:
        self.inside[key] = self.pool.open(key, name, seed=seed, **options)
        self.alone[key] = Adapter(self.network, method(name, **options), seed)

    def close(self, key: Any) -> None:
        self.pool.close(key)
        del self.inside[key], self.alone[key]

    def step(self, batches: Batches) -> None:
        found = self.pool.step(batches)
        assert list(found) == list(batches)
        for key, images in batches.items():
            assert state_bits(found[key]) == state_bits(self.alone[key].step(images)), key
        self.check()

    def check(self) -> None:
        for key, inside in self.inside.items():
            assert state_bits(inside.state) == state_bits(self.alone[key].state), key
            assert inside.frozen_batches == self.alone[key].frozen_batches


# --- the same bits


@pytest.mark.parametrize("name", VIT_METHODS)
def test_streams_of_one_method(
    open_either: Callable[..., Network], random_images: MakeImages, name: str
) -> None:
    with open_either(**list_needs(METHODS[name])) as network:
        pair = Pair(network)
        for seed in range(4):
            pair.open(seed, name, seed)
        for turn, sizes in enumerate([(1, 1, 1, 1), (3, 1, 5, 2), (2, 4, 1, 1)]):
            pair.step({seed: random_images(n, seed=9 * turn + seed) for seed, n in enumerate(sizes)})


@pytest.mark.parametrize("special", ["fozo", "align", "quar", "pea"])
def test_everything_mixed(bundle_path: Path, random_images: MakeImages, special: str) -> None:
    """Mix all methods that run on the network of a method, with what it needs."""
    needs, plain = list_needs(METHODS[special]), list_needs(METHODS["fozo"])
    names = [name for name in VIT_METHODS if list_needs(METHODS[name]) in (needs, plain)]
    assert special in names
    with Network.open(bundle_path, workers=2, micro_batch=3, **needs) as network:
        mix_everything(network, random_images, names)


def mix_everything(network: Network, random_images: MakeImages, names: list[str]) -> None:
    """Methods, options, batch sizes and progress differ, and streams come and go."""
    pair, generator = Pair(network), np.random.default_rng(0)
    for name in names:
        pair.open(name, name)
    pair.open(("fozo", 1), "fozo", 7, prompts=1, output="clean")
    pair.open(("fozo", 3), "fozo", 8, samples=2, window=6)
    for turn in range(5):
        if turn == 2:
            pair.close(("fozo", 1))
            pair.close("no_adapt")
            pair.open("late", "fozo", 9)
        if turn == 3:
            pair.open("no_adapt", "shift")
        keys = [key for key in generator.permutation(np.array([*pair.inside, None], object)) if key]
        some = keys[: len(keys) - turn % 3]
        pair.step({key: random_images(int(generator.integers(1, 6)), seed=turn) for key in some})


def test_one_stream(network: Network, random_images: MakeImages) -> None:
    pair = Pair(network)
    pair.open(None, "fozo")
    for turn in range(3):
        pair.step({None: random_images(4, seed=turn)})


def test_classes(network: Network, random_images: MakeImages) -> None:
    pair = Pair(network.select([17, 3, 4]))
    for seed in range(3):
        pair.open(seed, "fozo", seed)
    for turn in range(2):
        pair.step({seed: random_images(seed + 1, seed=turn) for seed in range(3)})


def test_the_guard_is_that_of_each_stream(watched: Watched, random_images: MakeImages) -> None:
    """Where white images meet prompts, the network answers with infinity."""
    compute = watched.view.candidates

    def candidates(images: ImageArray, tunables: Sequence[Tunables]) -> list[Outputs]:
        answers = compute(images, tunables)
        for answer, each in zip(answers, tunables, strict=True):
            answer.logits[(images == 255).all(axis=(1, 2, 3)) & ("prompts" in each)] = np.inf
        return answers

    watched.view.candidates = candidates  # type: ignore[method-assign]
    pair = Pair(watched.view)
    for key in "abc":
        pair.open(key, "fozo")
    white = np.full((2, 32, 32, 3), 255, np.uint8)
    for turn in range(3):
        pair.step({"a": random_images(2, seed=turn), "b": white, "c": random_images(3, seed=turn)})
    assert {key: stream.frozen_batches for key, stream in pair.inside.items()} == {"a": 0, "b": 3, "c": 0}


def test_answers_do_not_hold_those_of_other_streams(network: Network, random_images: MakeImages) -> None:
    pool = Pool(network)
    for key in "ab":
        pool.open(key, "no_adapt")
    for prediction in pool.step({key: random_images(2) for key in "ab"}).values():
        assert prediction.logits.flags.owndata


# --- few calls


def calls_of_a_step(watched: Watched, streams: Sequence[tuple[str, int, dict[str, Any]]]) -> list[Any]:
    """Return the calls of one step; streams are given by method, images and options."""
    pool = Pool(watched.view)
    for key, (name, _, options) in enumerate(streams):
        pool.open(key, name, **options)
    images = np.zeros((99, 32, 32, 3), np.uint8)
    pool.step({key: images[:n] for key, (_, n, _) in enumerate(streams)})
    return watched.calls


@pytest.mark.parametrize(
    ("streams", "calls"),
    [
        ([("fozo", 1, {})] * 16, [(16, 2)]),
        ([("fozo", 1, {}), ("fozo", 5, {}), ("fozo", 2, {})], [(8, 2)]),
        ([("fozo", 2, {})], [(2, 2)]),
        ([("no_adapt", 1, {}), ("shift", 2, {}), ("shift_origin", 3, {})], [(6, 1)]),
        # other prompts, other numbers of forwards
        (
            [("fozo", 2, {}), ("fozo", 3, {"prompts": 1}), ("fozo", 4, {"prompts": 1}), ("shift", 5, {})],
            [(2, 2), (7, 2), (5, 1)],
        ),
        ([("fozo", 1, {}), ("fozo", 2, {"samples": 2})], [(3, 2), (2, 2)]),
        ([("fozo", 1, {}), ("fozo", 2, {"output": "clean"})], [(3, 2), (2, 1)]),
        # as many images as are worth it
        ([("shift", 30, {})] * 5, [(60, 1), (60, 1), (30, 1)]),
        (
            [("shift", 65, {}), ("shift", 1, {}), ("shift", 63, {}), ("shift", 1, {})],
            [(65, 1), (64, 1), (1, 1)],
        ),
    ],
)
def test_calls_of_the_network(watched: Watched, streams: Any, calls: list[tuple[int, int]]) -> None:
    assert calls_of_a_step(watched, streams) == calls


def test_many_workers_get_more_at_once(network: Network) -> None:
    with network.rearrange(8, 4) as view:
        assert calls_of_a_step(Watched(view), [("shift", 30, {})] * 5) == [(120, 1), (30, 1)]


def test_images_that_would_influence_each_other_do_not_meet(watched: Watched) -> None:
    info = watched.view.info
    watched.view.info = replace(info, tunables=(*info.tunables, "batch_statistics"))
    assert calls_of_a_step(watched, [("fozo", 2, {}), ("fozo", 2, {}), ("shift", 3, {})]) == [
        (2, 2),
        (2, 2),
        (3, 1),
    ]


# --- what cannot be done


def test_keys(network: Network, random_images: MakeImages) -> None:
    pool = Pool(network)
    with pytest.raises(InputError, match=r"at least one stream, found none"):
        pool.step({})
    with pytest.raises(InputError, match=r"there is no stream 'a'; open are: none"):
        pool.close("a")
    stream = pool.open("a", "shift")
    pool.open("b", "shift")
    with pytest.raises(InputError, match=r"stream 'a' is open already"):
        pool.open("a", "fozo")
    before = stream.state
    with pytest.raises(InputError, match=r"there is no stream 3; open are: 'a', 'b'"):
        pool.step({"a": random_images(1), 3: random_images(1)})
    pool.close("b")
    with pytest.raises(InputError, match=r"there is no stream 'b'; open are: 'a'"):
        pool.step({"a": random_images(1), "b": random_images(1)})
    assert stream.state is before
    assert pool.step({"a": random_images(1)})["a"].logits.shape == (1, 20)


def test_streams_that_cannot_be_opened(
    network: Network, make_bundle: Callable[..., Bundle], tmp_path: Path
) -> None:
    pool = Pool(network)
    for arguments in ({"method": "fzoo"}, {"promts": 3}, {"prompts": -1}, {"seed": -1}, {"seed": "x"}):
        with pytest.raises(InputError):
            pool.open("a", **arguments)  # type: ignore[arg-type]
    pool.open("a")
    with Network.open(make_bundle(tmp_path / "plain", source=False), workers=1) as plain:
        pool = Pool(plain)
        with pytest.raises(BundleError, match="fozo source"):
            pool.open("a")
        pool.open("a", "shift_origin")


@pytest.mark.parametrize(
    "images", [np.zeros((0, 32, 32, 3), np.uint8), np.zeros((2, 32, 32, 3), np.float32), [[1]], None]
)
def test_images_are_checked_before_anything_runs(
    watched: Watched, random_images: MakeImages, images: Any
) -> None:
    pool = Pool(watched.view)
    streams = [pool.open(key, "shift") for key in ("good", "bad")]
    before = [stream.state for stream in streams]
    with pytest.raises(InputError, match=r"^stream 'bad': expected images"):
        pool.step({"good": random_images(2), "bad": images})
    assert watched.calls == []
    assert all(stream.state is state for stream, state in zip(streams, before, strict=True))


def test_a_network_that_fails(watched: Watched, random_images: MakeImages) -> None:
    pool, images = Pool(watched.view), random_images(2)
    streams = one_of_three(pool, "shift")
    before = [state_bits(stream.state) for stream in streams.values()]

    def fail(with_prompts: bool) -> Callable[..., None]:
        def before(images: ImageArray, tunables: Sequence[Tunables]) -> None:
            if ("prompts" in tunables[0]) is with_prompts:
                raise ComputeError("out of memory")

        return before

    for with_prompts, message in ((False, r"^stream 'b': out of"), (True, r"^streams 'a', 'c': out of")):
        watched.before = fail(with_prompts)
        with pytest.raises(ComputeError, match=message):
            pool.step(dict.fromkeys("abc", images))
    watched.before = lambda images, tunables: None
    assert_unchanged_and_usable(pool, streams, before, images)


@pytest.mark.parametrize("forwards", [0, 1])
@pytest.mark.parametrize("error", [InputError("no"), ValueError("no"), SystemExit("no")])
def test_a_stream_that_fails(
    network: Network,
    random_images: MakeImages,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    forwards: int,
) -> None:
    pool, images = Pool(network), random_images(2)
    streams = one_of_three(pool, "shift")
    before = [state_bits(stream.state) for stream in streams.values()]

    def step(self: BoundShift, state: State, images: ImageArray) -> Step[State]:
        for _ in range(forwards):
            yield Request(images)
        raise error

    message = {InputError: "^stream 'b': no$", ValueError: "^stream 'b': ValueError: no$", SystemExit: "^no$"}
    expected = RuntimeError if isinstance(error, ValueError) else type(error)
    with monkeypatch.context() as patch:
        patch.setattr(BoundShift, "step", step)
        with pytest.raises(expected, match=message[type(error)]) as caught:
            pool.step(dict.fromkeys("abc", images))
    assert error in (caught.value, caught.value.__cause__)
    assert_unchanged_and_usable(pool, streams, before, images)


def test_a_step_that_is_given_up_is_no_failure_to_its_method(
    network: Network, random_images: MakeImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = Pool(network)
    pool.open("a", "shift")
    pool.open("b", "no_adapt")
    caught: list[Exception] = []

    def fail(self: BoundNoAdapt, state: State, images: ImageArray) -> Step[State]:
        yield from ()
        raise InputError("no")

    def careful(self: BoundShift, state: State, images: ImageArray) -> Step[State]:
        try:
            yield Request(images)
        except Exception as error:
            caught.append(error)
        pytest.fail("the step went on")

    monkeypatch.setattr(BoundNoAdapt, "step", fail)
    monkeypatch.setattr(BoundShift, "step", careful)
    with pytest.raises(InputError, match=r"^stream 'b': no$"):
        pool.step(dict.fromkeys("ab", random_images(1)))
    assert caught == []


# --- checkpoints


def test_checkpoints(network: Network, random_images: MakeImages, tmp_path: Path) -> None:
    """What a stream of a pool saves, an adapter of its own can load, and the other way round."""
    pair = Pair(network)
    for key in "ab":
        pair.open(key, "fozo", 5)
    pair.step({"a": random_images(3, seed=1), "b": random_images(3, seed=2)})
    start = state_bits(pair.inside["a"].state)
    pair.inside["a"].save(tmp_path / "inside.npz")
    pair.alone["b"].save(tmp_path / "alone.npz")
    pair.step({"a": random_images(2, seed=3)})

    pair.alone["a"].load(tmp_path / "inside.npz")
    pair.inside["a"].load(tmp_path / "inside.npz")
    assert state_bits(pair.inside["a"].state) == start
    pair.step({"a": random_images(2, seed=4), "b": random_images(1, seed=4)})

    pair.close("b")
    pair.open("b", "fozo", 5)
    for streams in (pair.inside, pair.alone):
        streams["b"].load(tmp_path / "alone.npz")
    pair.step({"a": random_images(2, seed=5), "b": random_images(1, seed=5)})

    for streams in (pair.inside, pair.alone):
        streams["a"].reset()
    pair.step({"a": random_images(2, seed=6), "b": random_images(1, seed=6)})
    pair.open("c", "shift")
    with pytest.raises(StateError, match="method"):
        pair.inside["c"].load(tmp_path / "inside.npz")
    pair.check()


def test_a_closed_stream_is_an_adapter(network: Network, random_images: MakeImages) -> None:
    pool = Pool(network)
    stream, expected = pool.open("a", "fozo"), Adapter(network, Fozo())
    pool.step({"a": random_images(2)})
    expected.step(random_images(2))
    pool.close("a")
    assert pool.open("a", "fozo") is not stream
    assert state_bits(stream.step(random_images(1))) == state_bits(expected.step(random_images(1)))
