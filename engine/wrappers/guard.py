"""The guard against collapse: watches any method with label-free monitors and steps in before it does harm.

No published forward-only method checks whether it is hurting. What is done here follows from one bound: the
frozen network is always at hand, so a stream need never be much worse than without adaptation.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any, Literal

from ..interface.method import Prediction, State, Step, replace_step_counts
from ..interface.method_options import option
from ..interface.request import Request, Requests
from ..interface.view_batch import get_plain_images
from ..model import FloatArray, ImageArray, ModelInfo
from ..statistics.monitor import Alarm, PredictionPool, compute_agreement, estimate_loss, has_jumped
from ..statistics.objective import softmax
from .fallback import step_with_fallback
from .recorder import RequestRecorder
from .wrapper import BoundWrapper, Wrapper

AVERAGE_DECAY = 0.9
FOREVER = -1


@dataclass(frozen=True)
class GuardedState(State):
    """State of the method, and the guard's readings.

    Attributes:
        inner: state of the method.
        good: the last state of the method whose predictions passed a comparison, or the initial one.
        verified: comparisons passed since the last alarm.
        streak: comparisons passed in a row.
        look_in: batches until the next comparison with the frozen network.
        lost: predictions that adaptation has cost lately, as estimated, above what is tolerated.
        pause: batches that the frozen network is yet to answer; −1, all.
        next_pause: how many these will be after the next alarm.
        alarms: how often the method was found to do harm.
        shadows: forwards that were spent on comparisons.
        pool: the last predictions.
        entropy: running average of the pool's entropy.
        discrepancy: that of the distance to the source, where the method reports it.
    """

    inner: State
    good: State
    verified: int
    streak: int
    look_in: int
    lost: float
    pause: int
    next_pause: int
    alarms: int
    shadows: int
    pool: PredictionPool
    entropy: float | None = None
    discrepancy: float | None = None


@dataclass(frozen=True)
class Guarded(Wrapper):
    """Another method, watched; while all is well, it is compared with the frozen network ever more rarely.

    A batch whose images even the frozen network can hardly tell apart (black frames, noise, one class only)
    teaches nothing: the frozen network answers it, and it is not learnt from. When the method itself does
    harm, its policy is carried out: `rollback` to the last state that stood a comparison, or to the initial
    one if none did since the last alarm; `reset` to the initial state; `stop` adapting for good; or just
    `warn`. The first three leave this batch to the frozen network, and the first two the following ones as
    well, for a pause that doubles with every alarm: a method that always does harm is hardly ever heard.
    """

    guard: Literal["rollback", "reset", "stop", "warn"] = option(
        "rollback",
        "on signs of collapse, return to the last good state or to the start, stop adapting, or warn",
    )
    guard_shadow: int = option(
        8, "most batches from one comparison with the frozen network (a forward) to the next", low=1
    )
    guard_loss: float = option(
        0.01, "share of predictions that adaptation may cost, as estimated by comparison", low=0, high=1
    )
    guard_patience: float = option(
        2.0, "number of predictions that may be lost beyond guard_loss before an alarm", low=0
    )
    guard_diversity: float = option(
        0.25, "least diversity of the predictions, from 0, all alike, to 1", low=0, high=1
    )
    guard_jump: float = option(
        1.5, "factor of change in entropy or distance to the source that calls for a comparison", low=1
    )
    guard_pause: int = option(4, "batches left to the frozen network after the first alarm", low=1)
    guard_pause_max: int = option(64, "longest such pause; every further alarm doubles the pause", low=1)

    def bind(self, model: ModelInfo) -> BoundGuard:
        """Return the watched method bound to a model.

        Raises:
            BundleError: the bundle lacks something the method needs.
        """
        return BoundGuard(self, model, self.method.bind(model))


@dataclass(frozen=True, eq=False)
class BoundGuard(BoundWrapper[Guarded]):
    """A watched method on one model."""

    def init(self, seed: int) -> GuardedState:
        """Return the method's initial state, to be compared from the first batch on."""
        inner = self.inner.init(seed)
        return GuardedState(
            step=0,
            seed=seed,
            inner=inner,
            good=inner,
            verified=0,
            streak=0,
            look_in=0,
            lost=0.0,
            pause=0,
            next_pause=self.options.guard_pause,
            alarms=0,
            shadows=0,
            pool=PredictionPool.empty(self.model.classes),
        )

    def step(self, state: GuardedState, images: ImageArray) -> Step[GuardedState]:
        """Step the method and judge the result before it counts."""
        if state.pause:
            paused = replace(state, step=state.step + 1, pause=max(state.pause - 1, FOREVER))
            prediction = yield from self.predict(state, images)
            return prediction, paused
        recorder = RequestRecorder(images)
        prediction, inner = yield from recorder.record(step_with_fallback(self.inner, state.inner, images))
        next_state = replace(state, step=state.step + 1, inner=inner, look_in=max(state.look_in - 1, 0))
        if prediction.fallback:
            return prediction, next_state
        pool = PredictionPool.of(softmax(prediction.logits)).fill_from(state.pool)
        averages, jump = self._update_averages(state, pool, prediction)
        next_state = replace(next_state, pool=pool, **averages)
        diversity = pool.diversity
        indistinct = diversity is not None and diversity < self.options.guard_diversity
        diagnostics = {**prediction.diagnostics, "alarm": 0.0}
        if diversity is not None:
            diagnostics["diversity"] = diversity
        if state.look_in and not (indistinct or jump or recorder.logits is not None):
            return replace(prediction, diagnostics=diagnostics), next_state
        frozen = yield from recorder.request_frozen()
        probabilities = softmax(frozen)
        loss = estimate_loss(probabilities, prediction.logits)
        lost = max(0.0, state.lost + loss - self.options.guard_loss * len(images))
        alarm = self._choose_alarm(PredictionPool.of(probabilities).diversity, indistinct, lost)
        diagnostics["agreement"] = compute_agreement(probabilities, prediction.logits)
        diagnostics["estimated_loss"] = loss / len(images)
        diagnostics["alarm"] = float(alarm)
        extra = recorder.extra_forwards
        answer = replace(prediction, forwards=prediction.forwards + extra, diagnostics=diagnostics)
        next_state = replace(next_state, shadows=state.shadows + extra)
        if alarm is Alarm.NONE:
            return answer, self._pass_comparison(lost, state, next_state)
        return self._apply_policy(alarm, answer, frozen, state, next_state)

    def predict(self, state: GuardedState, images: ImageArray) -> Requests[Prediction]:
        """Predict with the current state of the method, or during a pause with the frozen network."""
        if not state.pause:
            prediction = yield from self.inner.predict(state.inner, images)
            return prediction
        (outputs,) = yield Request(get_plain_images(images))
        return Prediction(outputs.logits, 1, diagnostics={"paused": 1.0}, guarded=True)

    def _update_averages(
        self, state: GuardedState, pool: PredictionPool, prediction: Prediction
    ) -> tuple[dict[str, Any], bool]:
        """Return the updated running averages, and whether a reading is far from its average."""
        readings = {"entropy": pool.entropy, "discrepancy": prediction.diagnostics.get("discrepancy")}
        averages, jump = {}, False
        for name, value in readings.items():
            average = getattr(state, name)
            if value is not None:
                jump = jump or has_jumped(value, average, self.options.guard_jump)
                average = value if average is None else AVERAGE_DECAY * average + (1 - AVERAGE_DECAY) * value
            averages[name] = average
        return averages, jump

    def _choose_alarm(self, frozen_diversity: float | None, indistinct: bool, lost: float) -> Alarm:
        if frozen_diversity is not None and frozen_diversity < self.options.guard_diversity:
            return Alarm.ALIKE
        if lost > self.options.guard_patience:
            return Alarm.LOSS
        if indistinct:  # too few images do not show whether the method or the batch is the cause
            return Alarm.ALIKE if frozen_diversity is None else Alarm.COLLAPSE
        return Alarm.NONE

    def _apply_policy(
        self,
        alarm: Alarm,
        answer: Prediction,
        frozen: FloatArray,
        state: GuardedState,
        next_state: GuardedState,
    ) -> tuple[Prediction, GuardedState]:
        """Return the answer to a batch that raised an alarm, and the state after it."""
        options = self.options
        frozen_answer = replace(answer, logits=frozen, loss=None, guarded=True)
        if options.guard == "warn":
            if alarm is Alarm.ALIKE:
                return answer, replace(next_state, streak=0, look_in=0)
            if not state.alarms:
                warnings.warn(
                    f"{self.name} seems to do harm ({alarm.name.lower()}); guard=rollback would go back",
                    stacklevel=2,
                )
            return answer, self._reset_readings(next_state, next_state.inner)
        if alarm is Alarm.ALIKE:  # as if there had been no such batch
            inner = replace_step_counts(state.inner, next_state.inner)
            return frozen_answer, replace(next_state, inner=inner, streak=0, look_in=0)
        if options.guard == "stop":
            return frozen_answer, replace(self._reset_readings(next_state, state.inner), pause=FOREVER)
        good = state.good if options.guard == "rollback" and state.verified else self.inner.init(state.seed)
        paused = replace(
            self._reset_readings(next_state, replace_step_counts(good, next_state.inner)),
            good=good,
            pause=state.next_pause,
            next_pause=min(2 * state.next_pause, max(options.guard_pause_max, options.guard_pause)),
        )
        return frozen_answer, paused

    def _pass_comparison(self, lost: float, state: GuardedState, next_state: GuardedState) -> GuardedState:
        """Return the state after a comparison without alarm; only without loss the next waits longer."""
        if lost:
            return replace(next_state, lost=lost, streak=0, look_in=0)
        options, streak = self.options, state.streak + 1
        spacing = min(2 ** (streak // 2), options.guard_shadow)
        return replace(
            next_state,
            lost=0.0,
            good=state.inner,
            verified=state.verified + 1,
            streak=streak,
            look_in=spacing - 1,
            next_pause=options.guard_pause if spacing == options.guard_shadow else state.next_pause,
        )

    def _reset_readings(self, state: GuardedState, inner: State) -> GuardedState:
        """Return the state after an alarm: all readings start over."""
        return replace(
            state,
            inner=inner,
            verified=0,
            streak=0,
            look_in=0,
            lost=0.0,
            alarms=state.alarms + 1,
            pool=PredictionPool.empty(self.model.classes),
            entropy=None,
            discrepancy=None,
        )
