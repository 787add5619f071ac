"""FOA: candidates, order of losses, and resuming; test_foa_reference.py compares every number."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doubles import draw_images, state_bits, step_on
from fozo.engine.errors import BundleError, InputError
from fozo.engine.methods.foa import Foa
from fozo.engine.model import FloatArray, ImageArray, Outputs, Tunables
from fozo.engine.runtime.network import Network
from fozo.engine.streams.adapter import Adapter

SEED = 2020
SIZES = (12, 12, 12, 5, 12, 12, 1, 12)
SUBSET = (17, 3, 4, 11, 8, 0)
MakeImages = Callable[..., ImageArray]


@pytest.fixture(scope="module")
def network(bundle_path: Path) -> Iterator[Network]:
    with Network.open(bundle_path, workers=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def stream(random_images: MakeImages) -> list[ImageArray]:
    """Ragged, with a single image among them."""
    return [random_images(size, seed=index) for index, size in enumerate((12, 12, 12, 5, 12, 12, 1, 12))]


class Recording:
    """A stand-in that remembers how it was called, and how many answers' features were alive at most."""

    def __init__(self, network: Any) -> None:
        self.network, self.info = network, network.info
        self.calls: list[list[FloatArray]] = []
        self.alive = self.most = 0

    def __call__(self, images: ImageArray, **tunables: FloatArray) -> Outputs:
        return self.candidates(images, [tunables])[0]

    def candidates(self, images: ImageArray, tunables: Sequence[Tunables]) -> list[Outputs]:
        self.calls.append([each["prompts"][0] for each in tunables])
        answers: list[Outputs] = self.network.candidates(images, tunables)
        for answer in answers:
            self.alive += 1
            weakref.finalize(answer.features, self._freed)
        self.most = max(self.most, self.alive)
        return answers

    def _freed(self) -> None:
        self.alive -= 1

    @property
    def prompts(self) -> list[FloatArray]:
        return [each for call in self.calls for each in call]


def pixels(count: int, seed: int = 0) -> ImageArray:
    """For the stand-in: `[count, 2, 2, 3]`."""
    return draw_images(count, [seed, count])


def test_the_last_candidate_is_the_best_of_the_batch_before(stand_in: Callable[..., Any]) -> None:
    method = Foa()
    state = method.bind(stand_in().info).init(SEED)
    for step in range(5):
        recording = Recording(stand_in())
        before = state
        prediction, state = step_on(recording, method, state, pixels(6, step))
        assert len(recording.prompts) == prediction.forwards == 28
        assert recording.prompts[-1].tobytes() == before.best.tobytes()
        best = int(prediction.diagnostics["best"])
        assert recording.prompts[best].tobytes() == state.best.tobytes()
        assert all(each.dtype == np.float32 for each in recording.prompts)


def test_of_equal_losses_the_first_candidate_wins(stand_in: Callable[..., Any]) -> None:
    network = Recording(stand_in())
    network.network.steer *= 0  # prompts have no effect
    prediction, state = step_on(network, Foa(), Foa().bind(network.info).init(SEED), pixels(6))
    assert prediction.diagnostics["best"] == 0
    assert state.best.tobytes() == network.prompts[0].tobytes()


@pytest.mark.parametrize(("images", "at_once"), [(1, 28), (4, 28), (16, 8), (64, 2), (200, 2)])
@pytest.mark.parametrize("window", [0, 300])
def test_few_answers_are_held_at_a_time(
    stand_in: Callable[..., Any], images: int, at_once: int, window: int
) -> None:
    network = Recording(stand_in())
    state = Foa(window=window).bind(network.info).init(SEED)
    step_on(network, Foa(window=window), state, pixels(images))
    assert max(len(call) for call in network.calls) == at_once
    assert network.most <= at_once + 2  # the best one so far, and the one before
    assert network.alive == 0


def test_how_candidates_are_grouped_changes_nothing(stand_in: Callable[..., Any]) -> None:
    """Sixteen images go eight candidates at a time; one by one, the first is still the best of all."""
    network = stand_in()
    state = Foa().bind(network.info).init(SEED)
    recording = Recording(network)
    prediction, _ = step_on(recording, Foa(), state, pixels(16))
    source = network.info.source
    losses = []
    for prompts in recording.prompts:
        x = network(pixels(16), prompts=prompts[None])
        gap = (x.features.mean(0) - source.mean) ** 2 + (x.features.std(0, ddof=1) - source.std) ** 2
        p = np.exp(x.logits) / np.exp(x.logits).sum(axis=1, keepdims=True)
        losses.append(0.4 * gap.sum() * 16 / 64 - (p * np.log(p)).sum())
    assert prediction.loss == pytest.approx(min(losses), rel=1e-9)
    assert prediction.diagnostics["best"] == int(np.argmin(losses))


def test_a_draw_that_was_never_told_is_not_repeated(stand_in: Callable[..., Any]) -> None:
    """After a guarded batch only `step` has moved on."""
    first, second = Recording(stand_in()), Recording(stand_in())
    state = Foa().bind(first.info).init(SEED)
    step_on(first, Foa(), state, pixels(3))
    step_on(second, Foa(), replace(state, step=1), pixels(3))
    same = [a.tobytes() == b.tobytes() for a, b in zip(first.prompts, second.prompts, strict=True)]
    assert same == [False] * 27 + [True]


@pytest.mark.parametrize("covariance", ["identity", "diagonal", "full"])
def test_the_scale_of_the_loss_has_no_say(stand_in: Callable[..., Any], covariance: str) -> None:
    network = stand_in()
    methods = [Foa(covariance=covariance, loss_scale=scale) for scale in ("sum", "per_image")]  # type: ignore[arg-type]
    states = [method.bind(network.info).init(SEED) for method in methods]
    for size in (6, 6, 1, 5):
        steps = [step_on(network, m, s, pixels(size)) for m, s in zip(methods, states, strict=True)]
        states = [state for _, state in steps]
        assert steps[1][0].loss == pytest.approx(steps[0][0].loss * 64 / size, rel=1e-12)
        assert steps[0][0].logits.tobytes() == steps[1][0].logits.tobytes()
    assert state_bits(states[0]) == state_bits(states[1])


def test_the_order_of_the_images_has_no_say(stand_in: Callable[..., Any]) -> None:
    network = stand_in()
    state = Foa().bind(network.info).init(SEED)
    plain, after = step_on(network, Foa(), state, pixels(9))
    turned, other = step_on(network, Foa(), state, pixels(9)[::-1])
    np.testing.assert_allclose(turned.logits[::-1], plain.logits, rtol=1e-9)
    np.testing.assert_allclose(other.search.mean, after.search.mean, rtol=1e-12)


@pytest.mark.parametrize("covariance", ["identity", "diagonal", "full"])
def test_the_search_goes_downhill(stand_in: Callable[..., Any], covariance: str) -> None:
    """On a stream that stays the same; the best prompts are carried over, so it never goes up."""
    network, images = stand_in(), pixels(32)
    method = Foa(covariance=covariance, shift="none")  # type: ignore[arg-type]
    state = method.bind(network.info).init(SEED)
    losses = []
    for _ in range(60):
        prediction, state = step_on(network, method, state, images)
        assert prediction.loss is not None
        losses.append(prediction.loss)
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[9] < losses[0]
    assert state.search.sigma < 0.5


def test_the_shift_must_be_known_before_the_loss_sees_it() -> None:
    with pytest.raises(InputError, match="entropy_on=shifted"):
        Foa(shift_update="inclusive", entropy_on="shifted")
    Foa(shift_update="inclusive", entropy_on="shifted", shift="none")


def test_what_the_bundle_must_have(stand_in: Callable[..., Any]) -> None:
    info = stand_in().info
    with pytest.raises(BundleError, match="foa needs source statistics"):
        Foa().bind(replace(info, source=None)).init(0)
    with pytest.raises(BundleError, match="foa tunes prompts"):
        Foa().bind(replace(info, tunables=("norms",))).init(0)


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_a_resumed_search_goes_on_to_the_bit(
    bundle_path: Path, stream: list[ImageArray], tmp_path: Path, covariance: str
) -> None:
    """C is decomposed in every fourth generation, and what is resumed after the fifth has a stale one."""
    options: dict[str, Any] = {"covariance": covariance, "population": 4, "prompts": 1, "seed": 3}

    def start() -> Adapter:
        return Adapter.open(bundle_path, method="foa", workers=1, **options)

    whole, interrupted, resumed = start(), start(), start()
    expected = [whole.step(images).logits.tobytes() for images in stream[:7]]
    for images in stream[:5]:
        interrupted.step(images)
    interrupted.save(tmp_path / "state.npz")
    resumed.load(tmp_path / "state.npz")
    assert [resumed.step(images).logits.tobytes() for images in stream[5:7]] == expected[5:]
    assert state_bits(resumed.state) == state_bits(whole.state)
