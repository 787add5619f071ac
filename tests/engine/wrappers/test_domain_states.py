"""A state for each domain: a scripted method that counts what it learns where, real ones against adapters."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from domain_doubles import LETTERS, Scripted, Tally, batch, tally
from doubles import VIT_METHODS, lend_network, predict_on, state_bits, step_on
from fozo.engine.errors import BundleError, InputError
from fozo.engine.interface.method import Prediction, Step
from fozo.engine.model import FloatArray, ImageArray, ModelInfo, Outputs, Slopes, Tunables
from fozo.engine.registry import METHODS, Domains, Fozo, Guarded, Interval, Shift, get_options, method
from fozo.engine.runtime.network import Network
from fozo.engine.streams.adapter import Adapter, StreamState
from fozo.engine.streams.pool import Pool
from fozo.engine.wrappers.domain_states import BoundDomains, DomainsState, find_nearest

MakeImages = Callable[..., ImageArray]
# What becomes of ordinary images in each domain; their embeddings are at least 0.2 apart.
LOOKS: dict[str, Callable[[ImageArray], ImageArray]] = {
    "A": lambda images: images,
    "B": lambda images: images // 4,
    "C": lambda images: images // 2 + 64,
    "D": lambda images: images // 3 + 170,
}


def run(wrapped: Any, stream: Sequence[str]) -> tuple[list[Prediction], list[Any]]:
    """Predictions and the states after each; forwards are those of the network."""
    network = Scripted()
    adapter = Adapter(network, wrapped)
    predictions, states = [], []
    for letters in stream:
        before = network.images
        predictions.append(adapter.step(batch(letters)))
        assert predictions[-1].forwards * len(letters) == network.images - before
        states.append(adapter.state)
    return predictions, states


def changes(predictions: Sequence[Prediction]) -> list[int]:
    """Where the domain changed."""
    return [at for at, each in enumerate(predictions) if each.diagnostics["domain_changed"]]


# --- whole batches


@pytest.mark.parametrize("limit", [1, 2, 16])
@pytest.mark.parametrize("seed", range(4))
def test_each_domain_has_what_was_learnt_in_it(limit: int, seed: int) -> None:
    """Against a dictionary that forgets the letter that was left longest ago."""
    letters = "".join(np.random.default_rng([limit, seed]).choice(list(LETTERS), 40))
    predictions, states = run(Domains(Tally(), limit), [64 * letter for letter in letters])
    left: OrderedDict[str, int] = OrderedDict()
    current, learnt = letters[0], 0
    for letter, prediction, state in zip(letters, predictions, states, strict=True):
        if letter != current:
            left[current] = learnt
            current, learnt = letter, left.pop(letter, 0)
            while len(left) > limit:
                left.popitem(last=False)
            assert prediction.forwards == 2 and prediction.diagnostics["domain_changed"] == 1
        else:
            assert prediction.forwards == 1 and prediction.diagnostics["domain_changed"] == 0
        answered = np.zeros((64, 4), np.float32)
        answered[:, LETTERS.index(letter)] = learnt
        np.testing.assert_array_equal(prediction.logits, answered)
        learnt += 64
        assert tally(state.inner) == {letter: learnt}
        assert [tally(each) for each in state.earlier] == [{name: n} for name, n in left.items()]
        assert (
            len(state.earlier_statistics) == len(left) and prediction.diagnostics["domains"] == len(left) + 1
        )
        assert prediction.loss == 1
        drawn = [step for each in (state.inner, *state.earlier) for step in each.drawn]
        assert len(set(drawn)) == len(drawn)  # no step number, hence no random direction, comes twice
    assert len(set(letters)) == 4


def test_a_state_that_is_taken_up_is_the_one_that_was_left() -> None:
    """To the bit, except its step numbers."""
    wrapped, network = Domains(Interval(Tally(), 100)), Scripted()
    state = wrapped.bind(network.info).init(3)
    for letter in "AAAB":
        before = state
        _, state = step_on(network, wrapped, state, batch(64 * letter))
    (left,) = state.earlier
    assert left is before.inner
    assert len(left.images) == 64  # type: ignore[attr-defined]
    # Another step in the wrong domain comes first, and is an update.
    numbers = (state.inner.step + 1, state.inner.inner.step + 1)  # type: ignore[attr-defined]
    back: Any = replace(left, step=numbers[0], inner=replace(left.inner, step=numbers[1]))  # type: ignore[attr-defined, call-arg]
    _, expected = step_on(network, wrapped.method, back, batch(64 * "A"))
    _, state = step_on(network, wrapped, state, batch(64 * "A"))
    assert state_bits(state.inner) == state_bits(expected)
    assert tally(expected.inner) == {"A": 256}


def test_a_larger_batch_is_checked_alone() -> None:
    """What was left over of smaller ones is not mixed with it."""
    predictions, states = run(Domains(Tally()), [100 * "A", 16 * "A", 100 * "B", 16 * "B", 100 * "A"])
    assert changes(predictions) == [2, 4]
    assert states[1].domain.pool_images == 16 and states[2].domain.pool_images == 0
    np.testing.assert_array_equal(states[2].earlier_statistics[0], states[0].domain.statistics)
    assert ["domain_distance" in each.diagnostics for each in predictions] == [
        False,
        False,
        True,
        False,
        True,
    ]


def test_predictions_without_learning_are_those_of_the_current_domain() -> None:
    wrapped, network = Domains(Tally()), Scripted()
    _, states = run(wrapped, [64 * "A", 64 * "B", 64 * "B", 16 * "B"])
    before = state_bits(states[-1])
    prediction = predict_on(network, wrapped, states[-1], batch("AC"))
    assert prediction.logits.tolist() == [[0, 144, 0, 0]] * 2 and prediction.forwards == 1
    assert state_bits(states[-1]) == before


def test_the_nearest_of_the_known_domains() -> None:
    known = np.stack([[np.full(3, mean), np.ones(3)] for mean in (0.0, 1.0, 1.2)])
    close = np.stack([np.full(3, 1.15), np.ones(3)])
    # between means δ apart, of variance 1, the distance is δ²
    assert find_nearest(known, close, 0.003) == 2
    assert find_nearest(known, close, 0.002) is None
    assert find_nearest(known[:2], close, 0.03) == 1
    assert find_nearest(np.zeros((0, 0, 0)), close, 1e9) is None


# --- smaller batches


@pytest.mark.parametrize("size", [1, 16, 32])
def test_nothing_of_the_next_domain_is_put_away(size: int) -> None:
    """Until 64 images are there, the old state learns from those of the new domain; that is not kept."""
    turn = 64 // size
    predictions, states = run(Domains(Tally()), [size * letter for letter in "AABA" for _ in range(turn)])
    assert changes(predictions) == [3 * turn - 1, 4 * turn - 1]
    assert [p.forwards for p in predictions] == [1 + (at in changes(predictions)) for at in range(4 * turn)]
    assert tally(states[3 * turn - 2].inner) == {"A": 128, "B": 64 - size}
    assert [tally(each) for each in states[3 * turn - 1].earlier] == [{"A": 128}]
    assert tally(states[3 * turn - 1].inner) == {"B": size}
    assert tally(states[-1].inner) == {"A": 128 + size}
    assert [tally(each) for each in states[-1].earlier] == [{"B": size}]


def test_a_pool_across_a_change() -> None:
    """Forty of either make a domain that is neither; what was learnt of it is in no state of the others."""
    predictions, states = run(Domains(Tally()), [64 * "A", 40 * "A", 40 * "B", 64 * "B", 64 * "A"])
    assert changes(predictions) == [2, 3, 4]
    assert [tally(each) for each in states[3].earlier] == [{"A": 64}, {"B": 40}]
    assert tally(states[3].inner) == {"B": 64}
    assert tally(states[4].inner) == {"A": 128}


def test_interval_updates_do_not_bring_images_of_another_domain_along() -> None:
    stream = [letter for letter in "AABBAA" for _ in range(64)]
    predictions, states = run(Domains(Interval(Tally(), 48)), stream)
    assert changes(predictions) == [64 * 3 - 1, 64 * 5 - 1]
    for (earlier,) in (states[change].earlier for change in changes(predictions)):
        letters = {LETTERS[label] for label in earlier.images[:, 0, 0, 0]} | set(tally(earlier.inner))
        assert letters == {"A" if earlier is states[64 * 3 - 1].earlier[0] else "B"}
    assert set(tally(states[-1].inner.inner)) == {"A"}


# --- what is not finite


def test_answers_that_are_not_finite() -> None:
    """The frozen network answers; the domains are followed all the same."""
    predictions, states = run(Domains(Tally(breaks=1)), [64 * letter for letter in "ABBA"])
    assert [prediction.fallback for prediction in predictions] == [False, True, True, False]
    assert [prediction.forwards for prediction in predictions] == [1, 4, 2, 2]
    assert changes(predictions) == [1, 3]
    np.testing.assert_array_equal(predictions[1].logits, np.tile([0, 1, 0, 0], (64, 1)))
    assert tally(states[2].inner) == {} and tally(states[3].inner) == {"A": 128}


@pytest.mark.parametrize("size", [16, 64])
def test_an_embedding_that_is_not_finite_changes_nothing(size: int) -> None:
    network = Scripted()
    adapter = Adapter(network, Domains(Tally()))
    adapter.step(batch(64 * "A"))
    adapter.step(batch(16 * "A"))
    before = adapter.state
    network.ill = True
    assert adapter.step(batch(size * "B")).fallback
    assert state_bits(adapter.state) == state_bits(replace(before, step=3))
    network.ill = False
    assert adapter.step(batch(64 * "B")).diagnostics["domain_changed"] == 1
    assert tally(adapter.state.earlier[0]) == {"A": 64}  # type: ignore[attr-defined]


def test_a_state_that_is_not_finite_is_found_among_the_earlier_ones() -> None:
    """No method can make one; one that did would be stopped."""

    class Spoilt(BoundDomains):
        def step(self, *arguments: Any) -> Step[DomainsState]:
            prediction, state = yield from super().step(*arguments)
            bad = replace(state.inner, learnt=np.full(4, np.nan))  # type: ignore[call-arg]
            return prediction, replace(state, earlier=(state.inner, bad))

    @dataclass(frozen=True)
    class SpoiltDomains(Domains):
        def bind(self, model: ModelInfo) -> Spoilt:
            return Spoilt(self, model, self.method.bind(model))

    adapter = Adapter(Scripted(), SpoiltDomains(Tally()))
    assert adapter.step(batch("A")).fallback
    assert adapter.state.earlier == ()  # type: ignore[attr-defined]


@pytest.mark.parametrize("size", [16, 64])
def test_graphs_without_an_embedding(size: int) -> None:
    adapter = Adapter(Scripted(embeds=False), Domains(Tally()))
    before = adapter.state
    with pytest.raises(BundleError, match=r"graph of scripted has none.*set domains to 0"):
        adapter.step(batch(size * "A"))
    assert adapter.state is before


# --- with the guard


def test_a_batch_that_teaches_nothing_is_no_domain() -> None:
    """To the guard, a method that answers every image alike does harm; then nothing has happened."""
    guarded = Guarded(Domains(Tally()))
    network = Scripted()
    state = guarded.bind(network.info).init(0)
    for letter in "AB":
        prediction, state = step_on(network, guarded, state, batch(64 * letter))
        assert prediction.guarded and prediction.diagnostics["alarm"] == 1
        inner: Any = state.inner
        assert inner.earlier_statistics.size == inner.domain.statistics.size == len(inner.earlier) == 0
        assert tally(inner.inner) == {}
    assert (state.inner.step, inner.inner.step) == (2, 2)


# --- a real network


class Counted:
    """A view of a network that counts images, one forward each."""

    def __init__(self, network: Network) -> None:
        self.network, self.info, self.images = network, network.info, 0

    def __call__(self, images: ImageArray, **tunables: FloatArray) -> Outputs:
        return self.candidates(images, [tunables])[0]

    def candidates(self, images: ImageArray, tunables: Sequence[Tunables]) -> list[Outputs]:
        self.images += len(images) * len(tunables)
        return self.network.candidates(images, tunables)

    def pull_back(self, images: ImageArray, tunables: Tunables, slopes: Slopes) -> Outputs:
        return self.network.pull_back(images, tunables, slopes)


@pytest.fixture(scope="module")
def network(bundle_path: Path) -> Iterator[Network]:
    with Network.open(bundle_path, gradients=True, workers=2) as opened:
        yield opened


@pytest.fixture
def method_network(network: Network, bundle_path: Path, name: str) -> Iterator[Network]:
    """Open one with activations for a method that needs them."""
    with lend_network(network, bundle_path, METHODS[name]) as lent:
        yield lent


@pytest.fixture(scope="module")
def looks(random_images: MakeImages) -> Callable[[str, int], ImageArray]:
    """`looks(letter, seed)`: 64 images of a domain."""
    return lambda letter, seed: LOOKS[letter](random_images(64, seed=seed))


STREAM = "AABAACDDBBA"


@pytest.mark.parametrize("classes", [None, (17, 3, 4)], ids=["all", "some"])
@pytest.mark.parametrize("name", VIT_METHODS)  # methods with views: test_view_methods.py
def test_equals_an_adapter_for_each_domain(
    method_network: Network,
    looks: Callable[[str, int], ImageArray],
    name: str,
    classes: tuple[int, ...] | None,
) -> None:
    """Of which each goes on with the step number that all together have reached."""
    served = method_network if classes is None else method_network.select(classes)
    counted = Counted(served)
    together = Adapter(counted, method(name, domains=3), seed=5)
    apart: dict[str, Adapter] = {}
    number = 0
    for at, letter in enumerate(STREAM):
        changed = at > 0 and letter != STREAM[at - 1]
        number += changed
        own = apart.setdefault(letter, Adapter(served, METHODS[name], seed=5))
        own.restore(StreamState(replace(own.state, step=number)))
        expected, before = own.step(looks(letter, at)), counted.images
        found = together.step(looks(letter, at))
        assert found.logits.tobytes() == expected.logits.tobytes(), at
        assert state_bits(together.state.inner) == state_bits(own.state), at  # type: ignore[attr-defined]
        assert found.diagnostics["domain_changed"] == changed and not found.frozen
        assert found.loss == expected.loss
        assert found.forwards == expected.forwards * (1 + changed) == (counted.images - before) / 64
        number += 1
    assert len(together.state.earlier) == 3  # type: ignore[attr-defined]


def test_all_wrappers_together(network: Network, looks: Callable[[str, int], ImageArray]) -> None:
    counted = Counted(network)
    adapter = Adapter(counted, method("fozo", interval=32, domains=2, guard="rollback", guard_diversity=0.0))
    for at, letter in enumerate(STREAM):
        before = counted.images
        prediction = adapter.step(looks(letter, at))
        assert prediction.forwards == (counted.images - before) / 64
        assert np.isfinite(prediction.logits).all()
        assert all(type(value) is float for value in prediction.diagnostics.values())
    state: Any = adapter.state
    assert len(state.inner.earlier) == 2 and type(state.inner.earlier[0].inner).__name__ == "FozoState"


RESUMED = ("fozo:domains=2", "zoa:domains=16", "t3a:domains=1,interval=40", "pizo:domains=3,guard=rollback")


@pytest.mark.parametrize("cut", [0, 1, 6, 9])
@pytest.mark.parametrize("spec", RESUMED)
def test_resumes_bit_for_bit(
    network: Network, looks: Callable[[str, int], ImageArray], tmp_path: Path, spec: str, cut: int
) -> None:
    name, _, text = spec.partition(":")
    configured = method(name, **dict(pair.split("=") for pair in text.split(",")))
    stream = [looks(letter, at)[: 64 if at % 4 else 50] for at, letter in enumerate(STREAM)]
    whole, stopped, resumed = (Adapter(network, configured, seed=4) for _ in range(3))
    start = state_bits(whole.state)
    expected = [whole.step(images) for images in stream]
    for images in stream[:cut]:
        stopped.step(images)
    stopped.save(tmp_path / "state.npz")
    resumed.load(tmp_path / "state.npz")
    assert state_bits(resumed.state) == state_bits(stopped.state)
    for images, prediction in zip(stream[cut:], expected[cut:], strict=True):
        assert state_bits(resumed.step(images)) == state_bits(prediction)
    assert state_bits(resumed.state) == state_bits(whole.state)
    whole.reset()
    assert state_bits(whole.state) == start


def test_pooled_streams_equal_those_served_alone(
    network: Network, looks: Callable[[str, int], ImageArray]
) -> None:
    """Their domains change at different times, so that a step of one has twice the forwards of another's."""
    pool = Pool(network)
    streams = {"ABBA": "fozo", "AABB": "fozo", "DCDC": "zoa"}
    inside, alone = {}, {}
    for key, name in streams.items():
        inside[key] = pool.open(key, name, seed=1, domains=4)
        alone[key] = Adapter(network, method(name, domains=4), seed=1)
    for at in range(4):
        batches = {key: looks(key[at], at) for key in streams}
        for key, prediction in pool.step(batches).items():
            assert state_bits(prediction) == state_bits(alone[key].step(batches[key])), (key, at)
            assert state_bits(inside[key].state) == state_bits(alone[key].state), (key, at)
    assert [len(stream.state.earlier) for stream in inside.values()] == [1, 1, 1]  # type: ignore[attr-defined]


# --- options


def test_as_an_option_of_every_method() -> None:
    configured = method("fozo", domains="4", samples=2, interval=8, guard="reset", domains_threshold="0.1")
    assert configured == Guarded(Domains(Interval(Fozo(samples=2), 8), 4, 0.1), "reset")
    assert configured.name == "fozo" and configured.method.forwards == 1 + 4
    assert {"domains": 4, "domains_threshold": 0.1}.items() <= get_options(configured).items()
    assert method("shift", domains=0) == method("shift", domains="0") == Shift()
    with pytest.raises(InputError, match="domains_threshold needs domains; add domains=16"):
        method("shift", domains_threshold=0.1)
    for value in (-1, "-1", 1.5, "x", True, None):
        with pytest.raises(InputError, match="domains must be int ≥ 1"):
            method("shift", domains=value)
    with pytest.raises(InputError, match="domains_threshold must be float ≥ 0"):
        method("shift", domains=4, domains_threshold=-1.0)
