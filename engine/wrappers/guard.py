"""The guard against collapse: watches any method with label-free monitors and steps in before it does harm.

No published forward-only method checks whether it is hurting. What is done here follows from one bound: the
frozen network is always at hand, so a stream need never be much worse than without adaptation.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any, Literal

from ..interface.method import Prediction, State, late_array, renumbered
from ..interface.options import option
from ..model import FloatArray, Forward, ImageArray, ModelInfo
from ..statistics.monitor import Alarm, Pool, agreement, estimate_loss, has_jumped
from ..statistics.objective import softmax
from .fallback import guarded_step
from .recorder import Overheard
from .wrapper import Wrapper

AVERAGE_DECAY = 0.9
FOREVER = -1


@dataclass(frozen=True)
class GuardedState(State):
    """What the guard carries.

    Attributes:
        inner: state of the method.
        good: the last state of the method whose predictions stood a comparison, or the initial one.
        verified: comparisons stood since the last alarm.
        streak: comparisons stood in a row.
        look_in: batches until the next comparison with the frozen network.
        lost: predictions that adaptation has cost lately, as estimated, above what is tolerated.
        pause: batches that the frozen network is yet to answer; −1, all.
        next_pause: how many these will be after the next alarm.
        alarms: how often the method was found to do harm.
        shadows: forwards that were spent on comparisons.
        pool_images, pool_entropy, pool_mean: the pool of the last predictions (`monitor.Pool`).
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
    pool_images: float
    pool_entropy: float
    pool_mean: FloatArray | None = late_array("classes")
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
        "against collapse: at an alarm go back to the last good state, to the start, stop adapting, or warn",
    )
    guard_shadow: int = option(
        8, "batches from one comparison with the frozen network (a forward) to the next, at most", low=1
    )
    guard_loss: float = option(
        0.01, "share of predictions that adaptation may cost, as estimated by comparison", low=0, high=1
    )
    guard_patience: float = option(2.0, "predictions lost above that share until an alarm", low=0)
    guard_diversity: float = option(
        0.25, "how well predictions must tell images apart, from 0, not at all, to 1", low=0, high=1
    )
    guard_jump: float = option(
        1.5, "change of entropy or distance to the source, as a factor, that calls for a comparison", low=1
    )
    guard_pause: int = option(4, "batches left to the frozen network after the first alarm", low=1)
    guard_pause_max: int = option(64, "the same after repeated alarms, at most; each doubles it", low=1)

    def init(self, info: ModelInfo, seed: int) -> GuardedState:
        """The method's initial state, to be compared from the first batch on.

        Raises:
            BundleError: the bundle lacks something the method needs.
        """
        inner = self.method.init(info, seed)
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
            next_pause=self.guard_pause,
            alarms=0,
            shadows=0,
            pool_images=0.0,
            pool_entropy=0.0,
        )

    def step(
        self, state: GuardedState, images: ImageArray, network: Forward
    ) -> tuple[Prediction, GuardedState]:
        """A step of the method, judged before it counts."""
        if state.pause:
            paused = replace(state, step=state.step + 1, pause=max(state.pause - 1, FOREVER))
            return self.predict(state, images, network), paused
        heard = Overheard(network, images)
        prediction, inner = guarded_step(self.method, state.inner, images, heard)
        following = replace(state, step=state.step + 1, inner=inner, look_in=max(state.look_in - 1, 0))
        if prediction.guarded:
            return prediction, following
        pool = Pool.of(softmax(prediction.logits)).after(_pool(state))
        averages, jump = self._averaged(state, pool, prediction)
        following = replace(
            following,
            pool_images=pool.images,
            pool_entropy=pool.entropy,
            pool_mean=pool.mean,
            **averages,
        )
        diversity = pool.diversity
        alike = diversity is not None and diversity < self.guard_diversity
        diagnostics = {**prediction.diagnostics, "alarm": 0.0}
        if diversity is not None:
            diagnostics["diversity"] = diversity
        if state.look_in and not (alike or jump or heard.logits is not None):
            return replace(prediction, diagnostics=diagnostics), following
        frozen = heard.frozen()
        probabilities = softmax(frozen)
        loss = estimate_loss(probabilities, prediction.logits)
        lost = max(0.0, state.lost + loss - self.guard_loss * len(images))
        alarm = self._judged(Pool.of(probabilities).diversity, alike, lost)
        diagnostics["agreement"] = agreement(probabilities, prediction.logits)
        diagnostics["estimated_loss"] = loss / len(images)
        diagnostics["alarm"] = float(alarm)
        answer = replace(prediction, forwards=prediction.forwards + heard.asked, diagnostics=diagnostics)
        following = replace(following, shadows=state.shadows + heard.asked)
        return self._carried_out(alarm, lost, answer, frozen, state, following, network.info)

    def predict(self, state: GuardedState, images: ImageArray, network: Forward) -> Prediction:
        """Predicts with what the method has learnt so far, or during a pause with the frozen network."""
        if not state.pause:
            return self.method.predict(state.inner, images, network)
        return Prediction(network(images).logits, 1, diagnostics={"paused": 1.0}, guarded=True)

    def _averaged(
        self, state: GuardedState, pool: Pool, prediction: Prediction
    ) -> tuple[dict[str, Any], bool]:
        """The running averages brought up to date, and whether a reading lies far from its own."""
        readings = {"entropy": pool.entropy, "discrepancy": prediction.diagnostics.get("discrepancy")}
        averages, jump = {}, False
        for name, value in readings.items():
            average = getattr(state, name)
            if value is not None:
                jump = jump or has_jumped(value, average, self.guard_jump)
                average = value if average is None else AVERAGE_DECAY * average + (1 - AVERAGE_DECAY) * value
            averages[name] = average
        return averages, jump

    def _judged(self, frozen_diversity: float | None, alike: bool, lost: float) -> Alarm:
        if frozen_diversity is not None and frozen_diversity < self.guard_diversity:
            return Alarm.ALIKE
        if lost > self.guard_patience:
            return Alarm.LOSS
        if alike:  # whose fault that is cannot be told from too few images
            return Alarm.ALIKE if frozen_diversity is None else Alarm.COLLAPSE
        return Alarm.NONE

    def _carried_out(
        self,
        alarm: Alarm,
        lost: float,
        answer: Prediction,
        frozen: FloatArray,
        state: GuardedState,
        following: GuardedState,
        info: ModelInfo,
    ) -> tuple[Prediction, GuardedState]:
        """What becomes of a batch that was compared: the answer, and the state that follows from `state`."""
        if alarm is Alarm.NONE:
            return answer, self._stood(lost, state, following)
        instead = replace(answer, logits=frozen, loss=None, guarded=True)
        if self.guard == "warn":
            if alarm is Alarm.ALIKE:
                return answer, replace(following, streak=0, look_in=0)
            if not state.alarms:
                warnings.warn(
                    f"{self.name} seems to do harm ({alarm.name.lower()}); guard=rollback would go back",
                    stacklevel=2,
                )
            return answer, _alarmed(following, following.inner)
        if alarm is Alarm.ALIKE:  # as if the batch had not been
            kept = renumbered(state.inner, following.inner)
            return instead, replace(following, inner=kept, streak=0, look_in=0)
        if self.guard == "stop":
            return instead, replace(_alarmed(following, state.inner), pause=FOREVER)
        if self.guard == "rollback" and state.verified:
            back = state.good
        else:
            back = self.method.init(info, state.seed)
        paused = replace(
            _alarmed(following, renumbered(back, following.inner)),
            good=back,
            pause=state.next_pause,
            next_pause=min(2 * state.next_pause, max(self.guard_pause_max, self.guard_pause)),
        )
        return instead, paused

    def _stood(self, lost: float, state: GuardedState, following: GuardedState) -> GuardedState:
        """After a comparison without an alarm; only one without any loss lets the next wait longer."""
        if lost:
            return replace(following, lost=lost, streak=0, look_in=0)
        streak = state.streak + 1
        spacing = min(2 ** (streak // 2), self.guard_shadow)
        return replace(
            following,
            lost=0.0,
            good=state.inner,
            verified=state.verified + 1,
            streak=streak,
            look_in=spacing - 1,
            next_pause=self.guard_pause if spacing == self.guard_shadow else state.next_pause,
        )


def _alarmed(state: GuardedState, inner: State) -> GuardedState:
    """The state after an alarm: everything that was read so far belongs to a past that is over."""
    return replace(
        state,
        inner=inner,
        verified=0,
        streak=0,
        look_in=0,
        lost=0.0,
        alarms=state.alarms + 1,
        pool_images=0.0,
        pool_entropy=0.0,
        pool_mean=None,
        entropy=None,
        discrepancy=None,
    )


def _pool(state: GuardedState) -> Pool | None:
    if state.pool_mean is None:
        return None
    return Pool(state.pool_images, state.pool_mean, state.pool_entropy)
