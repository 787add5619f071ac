"""`fozo.testing`: methods that keep the contract pass, and every breach is named."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import pytest
from fozo.engine.registry import METHODS
from fozo.methods import (
    Binding,
    FloatArray,
    ImageArray,
    ModelInfo,
    Outputs,
    Prediction,
    Request,
    Requests,
    Slopes,
    State,
    Step,
    option,
    optional_array,
    validate,
)
from fozo.testing import MethodError, StandInNetwork, check_method, check_options, draw_images


@pytest.mark.parametrize("name", METHODS)
def test_our_methods_pass(name: str) -> None:
    check_method(METHODS[name])


@dataclass(frozen=True)
class CenterState(State):
    """Running mean of the last feature."""

    center: FloatArray | None = optional_array("feature_width")


@dataclass(frozen=True)
class Center:
    """A method as an author would write it."""

    name: ClassVar[str] = "center"
    decay: float = option(0.9, "share of the old mean that is kept", low=0, high=1)

    def __post_init__(self) -> None:
        validate(self)

    @property
    def forwards(self) -> int:
        return 1

    def bind(self, model: ModelInfo) -> BoundCenter:
        return BoundCenter(self, model)


@dataclass(frozen=True, eq=False)
class BoundCenter(Binding[Center]):
    """The method bound to a model."""

    def init(self, seed: int) -> CenterState:
        return CenterState(0, seed)

    def step(self, state: CenterState, images: ImageArray) -> Step[CenterState]:
        (outputs,) = yield Request(images)
        mean = outputs.features[:, -1].mean(axis=0, dtype=np.float64)
        if state.center is not None:
            mean = self.options.decay * state.center + (1 - self.options.decay) * mean
        return self.answer(outputs, state.center), replace(state, step=state.step + 1, center=mean)

    def predict(self, state: CenterState, images: ImageArray) -> Requests[Prediction]:
        (outputs,) = yield Request(images)
        return self.answer(outputs, state.center)

    def answer(self, outputs: Outputs, center: FloatArray | None) -> Prediction:
        if center is None:
            return Prediction(outputs.logits, 1)
        return Prediction(outputs.logits - self.model.head_weight @ center.astype(np.float32), 1)


def test_a_method_of_an_author_passes() -> None:
    check_method(Center())
    check_method(Center(0.5), StandInNetwork(classes=9), draw_images)


def broken(bound: type[BoundCenter]) -> Any:
    """Return the method with another bound method."""

    @dataclass(frozen=True)
    class Broken(Center):
        def bind(self, model: ModelInfo) -> BoundCenter:
            return bound(self, model)

    return Broken()


class ChangesOutputs(BoundCenter):
    def answer(self, outputs: Outputs, center: FloatArray | None) -> Prediction:
        outputs.logits[:] += 1
        return Prediction(outputs.logits, 1)


class ChangesState(BoundCenter):
    def step(self, state: CenterState, images: ImageArray) -> Step[CenterState]:
        if state.center is not None:
            state.center[:] = 0
        return (yield from super().step(state, images))


class Float64(BoundCenter):
    def answer(self, outputs: Outputs, center: FloatArray | None) -> Prediction:
        return Prediction(outputs.logits.astype(np.float64), 1)


class NotFinite(BoundCenter):
    def answer(self, outputs: Outputs, center: FloatArray | None) -> Prediction:
        return Prediction(outputs.logits * np.float32("nan"), 1)


class NotFiniteState(BoundCenter):
    def step(self, state: CenterState, images: ImageArray) -> Step[CenterState]:
        prediction, next_state = yield from super().step(state, images)
        return prediction, replace(next_state, center=np.full(self.model.feature_width, np.nan))


class Miscounts(BoundCenter):
    def step(self, state: CenterState, images: ImageArray) -> Step[CenterState]:
        yield Request(images)
        return (yield from super().step(state, images))


class HidesGradients(BoundCenter):
    def step(self, state: CenterState, images: ImageArray) -> Step[CenterState]:
        yield Request(images, [{}], Slopes(np.zeros((len(images), self.model.classes))))
        return (yield from super().step(state, images))


class ForgetsToCount(BoundCenter):
    def step(self, state: CenterState, images: ImageArray) -> Step[CenterState]:
        prediction, next_state = yield from super().step(state, images)
        return prediction, replace(next_state, step=0)


class UnknownTunable(BoundCenter):
    def step(self, state: CenterState, images: ImageArray) -> Step[CenterState]:
        yield Request(images, [{"weights": np.zeros((1, 3), np.float32)}])
        raise AssertionError("a request for an unknown tunable was answered")


class GlobalGenerator(BoundCenter):
    def answer(self, outputs: Outputs, center: FloatArray | None) -> Prediction:
        return Prediction(outputs.logits, 1, float(np.random.random()))


class HiddenState(BoundCenter):
    calls: ClassVar[list[int]] = []

    def answer(self, outputs: Outputs, center: FloatArray | None) -> Prediction:
        self.calls.append(1)
        return Prediction(outputs.logits + np.float32(len(self.calls)), 1)


@dataclass(frozen=True)
class UndeclaredState(State):
    """A state whose array is None at first and not declared."""

    center: FloatArray | None = None


class UndeclaredArray(BoundCenter):
    def init(self, seed: int) -> Any:
        return UndeclaredState(0, seed)


@pytest.mark.parametrize(
    ("bound", "message"),
    [
        (ChangesOutputs, "must not be changed in place"),
        (ChangesState, "must not be changed in place"),
        (Float64, r"expected logits float32 \[7, 6\], found float64"),
        (NotFinite, "logits must be finite"),
        (NotFiniteState, "the state must be finite, found center"),
        (Miscounts, "used 2 forwards and reported 1"),
        (HidesGradients, "used 1 pull_backs and reported 0"),
        (ForgetsToCount, "expected a state with step 1 and seed 5, found step 0"),
        (UnknownTunable, "no tunable 'weights', only prompts, norms"),
        (GlobalGenerator, "two streams with one seed differ"),
        (HiddenState, "predict must give the same logits twice"),
        (UndeclaredArray, "declare arrays with optional_array"),
    ],
)
def test_a_breach_of_the_contract_is_named(bound: type[BoundCenter], message: str) -> None:
    with pytest.raises(MethodError, match=message):
        check_method(broken(bound))


@dataclass
class Mutable:
    """Options that can be assigned."""

    name: ClassVar[str] = "mutable"
    forwards: ClassVar[int] = 1
    decay: float = option(0.9, "share")


@dataclass(frozen=True)
class Nameless:
    """A method without a name."""

    decay: float = field(default=1.0)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Mutable(), "frozen=True"),
        (Nameless(), "has no name"),
        (Center, "expected a dataclass instance"),
        (3, "expected a dataclass instance, found int"),
    ],
)
def test_options_are_checked(value: Any, message: str) -> None:
    with pytest.raises(MethodError, match=message):
        check_options(value)


def test_the_error_is_an_assertion() -> None:
    assert issubclass(MethodError, AssertionError)
