"""The guard against collapse, on scripted methods: what sets it off, what it then does, and what it costs."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from doubles import predict_on, state_bits, step_on
from fozo.engine.errors import InputError
from fozo.engine.interface.method import Prediction, Step
from fozo.engine.interface.request import Request, Requests
from fozo.engine.model import FloatArray, ImageArray, ModelInfo, Outputs, Tunables
from fozo.engine.registry import METHODS, Fozo, Guarded, Interval, Shift, get_options, method
from fozo.engine.state import State, replace_step_counts
from fozo.engine.statistics.monitor import Alarm
from fozo.engine.streams.adapter import Adapter
from fozo.engine.wrappers.guard import FOREVER

CLASSES = 10


def batch(labels: object, gain: int = 60) -> ImageArray:
    """Images that say which class the frozen network sees in them, and how surely (60: quite, 10: not)."""
    chosen = np.asarray(labels)
    made = np.zeros((len(chosen), 2, 2, 3), np.uint8)
    made[:, 0, 0, 0], made[:, 0, 0, 1] = chosen, gain
    return made


MIXED = batch(np.arange(40) % CLASSES)
UNSURE = batch(np.arange(40) % CLASSES, 30)
BLACK = batch(np.zeros(40, int), 0)
ONE_CLASS = batch(np.full(40, 3))


class Scripted:
    """A network that reads its answer off the images, and counts."""

    def __init__(self) -> None:
        weight = np.zeros((CLASSES, 4), np.float32)
        self.info = ModelInfo("scripted", "scripted", 1, 4, 5, 0.1, weight, np.zeros(CLASSES, np.float32))
        self.forwards = self.images = 0

    def __call__(self, images: ImageArray, **tunables: FloatArray) -> Outputs:
        self.forwards += 1
        self.images += len(images)
        logits = np.zeros((len(images), CLASSES), np.float32)
        logits[np.arange(len(images)), images[:, 0, 0, 0]] = images[:, 0, 0, 1] / 10
        return Outputs(logits, np.zeros((len(images), 1, 4), np.float32))

    def candidates(self, images: ImageArray, tunables: Sequence[Tunables]) -> list[Outputs]:
        return [self(images, **each) for each in tunables]


@dataclass(frozen=True)
class DriftState(State):
    """How many steps were learnt from."""

    learnt: int = 0


@dataclass(frozen=True)
class Drift:
    """Predicts like the frozen network for so many steps that it has learnt from; then it goes wrong.

    It never asks for the frozen network's own answer unless it is `open`.
    """

    name: ClassVar[str] = "drift"
    after: int = 10**9
    wrong: str = "other"
    open: bool = False

    @property
    def forwards(self) -> int:
        return 1

    def bind(self, model: ModelInfo) -> Drift:
        return self

    def init(self, seed: int) -> DriftState:
        return DriftState(0, seed)

    def step(self, state: DriftState, images: ImageArray) -> Step[DriftState]:
        prediction = yield from self.predict(state, images)
        return prediction, replace(state, step=state.step + 1, learnt=state.learnt + 1)

    def predict(self, state: DriftState, images: ImageArray) -> Requests[Prediction]:
        tunables = {} if self.open else {"prompts": np.zeros((1, 0, 4), np.float32)}
        (outputs,) = yield Request(images, [tunables])
        logits = outputs.logits
        if state.learnt >= self.after:
            if self.wrong == "other":
                logits = np.roll(logits, 1, axis=1)
            elif self.wrong == "same":
                logits = np.roll(np.zeros_like(logits) + 8 * np.eye(CLASSES, dtype=np.float32)[0], 3, axis=1)
            elif self.wrong == "nan":
                logits = logits * np.float32("nan")
        return Prediction(logits, 1, diagnostics={"discrepancy": 1.0})


def run(guarded: Any, stream: Sequence[ImageArray]) -> tuple[list[Prediction], list[Any], Scripted]:
    """Predictions, the states after each, and the network."""
    network = Scripted()
    adapter = Adapter(network, guarded)
    predictions, states = [], []
    for images in stream:
        before = network.images
        predictions.append(adapter.step(images))
        assert predictions[-1].forwards * len(images) == network.images - before
        states.append(adapter.state)
    return predictions, states, network


def alarms(predictions: Sequence[Prediction]) -> list[int]:
    return [int(prediction.diagnostics.get("alarm", -1)) for prediction in predictions]


def frozen_answers(predictions: Sequence[Prediction], stream: Sequence[ImageArray]) -> list[bool]:
    network = Scripted()
    return [
        p.guarded and p.logits.tobytes() == network(images).logits.tobytes()
        for p, images in zip(predictions, stream, strict=True)
    ]


# --- while all is well


def test_a_sane_method_is_left_alone_and_compared_ever_more_rarely() -> None:
    predictions, states, network = run(Guarded(Drift()), [MIXED] * 60)
    assert not any(prediction.frozen for prediction in predictions)
    looked = [index for index, p in enumerate(predictions) if p.forwards == 2]
    assert looked == [0, 1, 3, 5, 9, 13, *range(21, 60, 8)]
    assert states[-1].shadows == len(looked) == network.forwards - 60
    assert states[-1].inner.learnt == 60


def test_comparisons_are_free_where_the_method_asks_for_the_frozen_answer() -> None:
    predictions, states, network = run(Guarded(Drift(open=True)), [MIXED] * 20)
    assert network.forwards == 20 and states[-1].shadows == 0
    assert all(prediction.diagnostics["agreement"] == 1 for prediction in predictions)


@pytest.mark.parametrize("images", [MIXED, UNSURE])
def test_the_answers_are_those_of_the_method(images: ImageArray) -> None:
    plain, _, _ = run(Drift(), [images] * 5)
    guarded, _, _ = run(Guarded(Drift()), [images] * 5)
    for left, right in zip(plain, guarded, strict=True):
        assert left.logits.tobytes() == right.logits.tobytes() and not right.frozen


def test_differing_where_the_network_is_unsure_is_no_alarm() -> None:
    guarded = Guarded(Drift(after=0), guard_diversity=0.05)
    predictions, _, _ = run(guarded, [batch(np.arange(40) % CLASSES, 15)] * 20)
    assert not any(alarm > 0 for alarm in alarms(predictions)), alarms(predictions)
    assert predictions[0].diagnostics["agreement"] == 0


def test_a_jump_of_the_entropy_calls_for_a_comparison() -> None:
    stream = [MIXED] * 14 + [UNSURE]
    predictions, _, _ = run(Guarded(Drift()), stream)
    assert predictions[14].forwards == 2
    assert run(Guarded(Drift(), guard_jump=100.0), stream)[0][14].forwards == 1


# --- images that teach nothing


@pytest.mark.parametrize("bad", [BLACK, ONE_CLASS], ids=["black", "one class"])
@pytest.mark.parametrize("policy", ["rollback", "reset", "stop"])
def test_batches_that_are_all_alike_are_not_learnt_from(bad: ImageArray, policy: Any) -> None:
    stream = [MIXED] * 3 + [bad] * 2 + [MIXED] * 3
    predictions, states, _ = run(Guarded(Drift(), guard=policy), stream)
    assert alarms(predictions) == [0] * 3 + [Alarm.ALIKE] * 2 + [0] * 3
    assert frozen_answers(predictions, stream) == [False] * 3 + [True] * 2 + [False] * 3
    assert states[-1].inner.learnt == 6 and states[-1].inner.step == 8
    assert states[-1].alarms == 0


def test_warning_alone_learns_from_anything() -> None:
    predictions, states, _ = run(Guarded(Drift(), guard="warn"), [MIXED, BLACK, MIXED])
    assert alarms(predictions) == [0, Alarm.ALIKE, 0]
    assert not any(prediction.frozen for prediction in predictions)
    assert states[-1].inner.learnt == 3


def test_single_images_are_judged_together() -> None:
    rng = np.random.default_rng(0)
    stream = [batch([label]) for label in rng.integers(0, CLASSES, 60)] + [batch([3])] * 120
    predictions, _, _ = run(Guarded(Drift()), stream)
    found = alarms(predictions)
    assert not any(found[:60])
    assert found[-1] == Alarm.ALIKE
    assert predictions[-1].guarded


# --- a method that does harm


def test_rollback_to_the_last_good_state() -> None:
    """Good for 6 steps; the seventh is contradicted on all 40 images."""
    stream = [MIXED] * 12
    predictions, states, _ = run(Guarded(Drift(after=6), guard_shadow=1), stream)
    assert alarms(predictions) == [0] * 6 + [Alarm.LOSS] + [-1] * 4 + [0]
    assert frozen_answers(predictions, stream) == [False] * 6 + [True] * 5 + [False]
    after = states[6]
    assert after.inner.learnt == 5 and after.inner.step == 7  # the state that predicted the sixth batch
    assert (after.alarms, after.pause, after.verified) == (1, 4, 0)
    assert all(state.inner == after.inner for state in states[6:11])  # nothing is learnt in a pause
    assert states[11].inner.learnt == 6 and states[11].inner.step == 8


def test_harm_that_returns_at_once_leads_back_to_the_start_after_ever_longer_pauses() -> None:
    predictions, states, _ = run(Guarded(Drift(after=0), guard_pause=2, guard_pause_max=6), [MIXED] * 40)
    at = [index for index, alarm in enumerate(alarms(predictions)) if alarm > 0]
    assert np.diff(at).tolist() == [3, 5, 7, 7, 7, 7]  # the pause, 2, 4, 6, 6, …, and the attempt
    assert all(prediction.guarded for prediction in predictions)
    assert states[-1].inner.learnt == 0
    assert states[-1].alarms == len(at)


def test_after_a_long_good_time_pauses_are_short_again() -> None:
    guarded = Guarded(Drift(after=8), guard="reset", guard_pause=2, guard_shadow=2)
    _, states, _ = run(guarded, [MIXED] * 60)
    pauses = [after.pause for before, after in pairwise(states) if after.alarms > before.alarms]
    assert len(pauses) > 2
    assert set(pauses) == {2}


@pytest.mark.parametrize(("verified", "learnt"), [(0, 0), (1, 99)])
def test_a_good_state_that_fails_at_once_is_not_trusted_again(verified: int, learnt: int) -> None:
    guarded, network = Guarded(Drift(after=6)), Scripted()
    spoilt = DriftState(5, 0, 99)
    state = replace(guarded.bind(network.info).init(0), inner=spoilt, good=spoilt, verified=verified)
    prediction, following = step_on(network, guarded, state, MIXED)
    assert prediction.guarded
    assert (following.inner.learnt, following.good.learnt) == (learnt, learnt)  # type: ignore[attr-defined]


def test_reset_goes_back_to_the_start() -> None:
    predictions, states, _ = run(Guarded(Drift(after=6), guard="reset", guard_shadow=1), [MIXED] * 8)
    assert alarms(predictions)[6] == Alarm.LOSS
    assert states[6].inner == DriftState(step=7, seed=states[6].seed, learnt=0)


def test_stop_is_for_good() -> None:
    stream = [MIXED] * 30
    predictions, states, network = run(Guarded(Drift(after=6), guard="stop", guard_shadow=1), stream)
    assert frozen_answers(predictions, stream) == [False] * 6 + [True] * 24
    assert states[-1].pause == FOREVER
    assert states[-1].inner.learnt == 6
    assert predict_on(network, Guarded(Drift(after=6), guard="stop"), states[-1], MIXED).guarded


def test_warn_warns_once_and_touches_nothing() -> None:
    with pytest.warns(UserWarning, match="drift seems to do harm") as caught:
        predictions, states, _ = run(Guarded(Drift(after=6), guard="warn", guard_shadow=1), [MIXED] * 12)
    assert len(caught) == 1
    assert alarms(predictions) == [0] * 6 + [Alarm.LOSS] * 6
    assert states[-1].alarms == 6 and states[-1].inner.learnt == 12
    assert predictions[8].logits.argmax(axis=1).tolist() == np.roll(np.arange(40) % CLASSES, -1).tolist()


def test_only_warn_warns() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(Guarded(Drift(after=6)), [MIXED] * 12)


def test_predictions_that_are_all_alike_are_the_methods_fault_if_the_frozen_ones_are_not() -> None:
    guarded = Guarded(Drift(after=6, wrong="same"), guard_patience=1e6)
    predictions, _, _ = run(guarded, [UNSURE] * 8)
    assert alarms(predictions)[6] == Alarm.COLLAPSE  # although no comparison was due


def test_slight_harm_adds_up() -> None:
    """Each batch contradicts one sure answer of 40: more than 1 %, but little at a time."""

    @dataclass(frozen=True)
    class Slight(Drift):
        def predict(self, state: DriftState, images: ImageArray) -> Requests[Prediction]:
            prediction = yield from super().predict(state, images)
            logits = prediction.logits.copy()
            logits[0] = np.roll(logits[0], 1)
            return replace(prediction, logits=logits)

    predictions, _, _ = run(Guarded(Slight()), [MIXED] * 6)
    found = alarms(predictions)
    first = found.index(Alarm.LOSS)
    assert 2 <= first <= 5 and not any(found[:first])
    assert [p.forwards for p in predictions[:first]] == [2] * first  # watched closely meanwhile
    tolerant = run(Guarded(Slight(), guard_loss=0.05), [MIXED] * 20)[0]
    assert not any(alarms(tolerant))


def test_what_is_not_finite_is_left_to_the_other_guard() -> None:
    predictions, states, _ = run(Guarded(Drift(after=2, wrong="nan")), [MIXED] * 4)
    assert [prediction.fallback for prediction in predictions] == [False, False, True, True]
    assert np.isfinite(predictions[-1].logits).all()
    assert states[-1].inner.learnt == 2 and states[-1].inner.step == 4
    assert states[-1].alarms == 0


def test_step_counts_are_replaced_in_states_inside_states() -> None:
    network, outer = Scripted(), Interval(Drift(), interval=2)
    start = outer.bind(network.info).init(1)
    later = start
    for _ in range(5):
        _, later = step_on(network, outer, later, batch([1]))
    again = replace_step_counts(start, later)
    assert (again.step, again.inner.step) == (later.step, later.inner.step) == (5, 2)
    assert again.inner.learnt == 0  # type: ignore[attr-defined]


# --- with interval updates, both ways around


def test_guard_around_interval_updates() -> None:
    stream = [MIXED] * 20
    predictions, states, _ = run(Guarded(Interval(Drift(after=2), interval=80), guard_shadow=1), stream)
    assert alarms(predictions)[:5] == [0, 0, 0, 0, Alarm.LOSS]  # the second update is felt by the fifth batch
    assert states[4].inner.inner.learnt < 2


def test_interval_updates_around_the_guard() -> None:
    predictions, states, _ = run(Interval(Guarded(Drift(after=1)), interval=80), [MIXED] * 8)
    assert states[3].inner.alarms == 1 and states[3].inner.pause == 4
    assert [prediction.guarded for prediction in predictions][4:] == [True] * 4


# --- checkpoints and options


@pytest.mark.parametrize("cut", [0, 3, 7, 9])
@pytest.mark.parametrize("guarded", [Guarded(Drift(after=5), guard_pause=2), Guarded(Interval(Drift(1), 80))])
def test_resumes_bit_for_bit(tmp_path: Path, cut: int, guarded: Any) -> None:
    stream = [MIXED, BLACK, MIXED, UNSURE] * 4
    network = Scripted()
    whole, stopped, resumed = (Adapter(network, guarded, seed=4) for _ in range(3))
    start = state_bits(whole.state)
    expected = [whole.step(images) for images in stream]
    for images in stream[:cut]:
        stopped.step(images)
    stopped.save(tmp_path / "state.npz")
    resumed.load(tmp_path / "state.npz")
    for images, prediction in zip(stream[cut:], expected[cut:], strict=True):
        found = resumed.step(images)
        assert found.logits.tobytes() == prediction.logits.tobytes()
        assert dict(found.diagnostics) == dict(prediction.diagnostics)
    assert state_bits(resumed.state) == state_bits(whole.state)
    whole.reset()
    assert state_bits(whole.state) == start


@pytest.mark.parametrize("name", [name for name in METHODS if name in ("no_adapt", "shift", "fozo", "lame")])
def test_published_methods_under_guard_on_a_stand_in(stand_in: Any, name: str) -> None:
    network = stand_in()
    adapter = Adapter(network, method(name, guard="rollback", interval=4))
    for index in range(6):
        images = np.random.default_rng(index).integers(0, 256, (3, 2, 2, 3), dtype=np.uint8)
        prediction = adapter.step(images)
        assert np.isfinite(prediction.logits).all() and prediction.logits.shape == (3, 5)
        assert all(type(value) is float for value in prediction.diagnostics.values())


def test_as_an_option_of_every_method() -> None:
    configured = method("fozo", guard="reset", guard_loss="0.02", samples=2, interval=8)
    assert configured == Guarded(Interval(Fozo(samples=2), 8), "reset", guard_loss=0.02)
    assert configured.name == "fozo"
    assert get_options(configured)["guard"] == "reset" and get_options(configured)["samples"] == 2
    assert method("shift", guard="off") == Shift()
    with pytest.raises(InputError, match="guard_loss needs guard; add guard=rollback"):
        method("shift", guard_loss=0.02)
    with pytest.raises(InputError, match=r"guard must be rollback\|reset\|stop\|warn"):
        method("shift", guard="on")
    with pytest.raises(InputError, match="guard_diversity must be float ≥ 0 ≤ 1"):
        method("shift", guard="stop", guard_diversity=1.5)
    with pytest.raises(InputError, match=r"every method has: .*guard_shadow"):
        method("shift", gaurd="stop")
