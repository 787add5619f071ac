"""The contract of a method: state is a value that is passed in and returned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol, TypeVar

from ..model import FloatArray, Forward, ImageArray, ModelInfo
from ..statistics.objective import softmax


@dataclass(frozen=True)
class State:
    """All that a method carries from batch to batch; each method adds its own fields.

    Randomness is a pure function of `seed` and `step`, so these two are the whole random state. Fields are
    numbers, arrays of a fixed shape, or states of another method. An array that is None at first is made with
    `late_array`, one whose length changes with `growing_array`, any number of states with `several_states`,
    so that a checkpoint can be checked.

    Attributes:
        step: batches processed.
        seed: what the method's random draws derive from.
    """

    step: int
    seed: int


@dataclass(frozen=True)
class Prediction:
    """What a method says about a batch.

    Attributes:
        logits: float32 `[N, K]`.
        forwards: forwards over the batch that were used for it.
        loss: the adaptation loss, where the method has one.
        diagnostics: numbers that a person would plot (`epsilon`, `rate`, `entropy`, …).
        guarded: the method produced non-finite values and the frozen network answered instead.
    """

    logits: FloatArray
    forwards: int
    loss: float | None = None
    diagnostics: Mapping[str, float] = field(default_factory=dict)
    guarded: bool = False

    @property
    def probabilities(self) -> FloatArray:
        """Softmax of the logits, float64 `[N, K]`."""
        return softmax(self.logits)


def late_array(*axes: str) -> Any:
    """A state field, None at first, then float64 with one axis per named attribute of `ModelInfo`."""
    return field(default=None, metadata={"axes": axes})


def growing_array(free: int = 1) -> Any:
    """A state field for an array whose first `free` axes may change; the rest stays as in `init`."""
    return field(metadata={"free": free})


def several_states(like: str, each_of: str) -> Any:
    """A state field for a tuple of states, none at first.

    Each is like that in the field `like`, and there is one for each entry of the array `each_of`, a field
    that comes before.
    """
    return field(default=(), metadata={"like": like, "each_of": each_of})


StateT = TypeVar("StateT", bound=State)


def renumbered(state: StateT, like: State) -> StateT:
    """A state with the step numbers of a later one, so that no random direction is drawn a second time."""
    nested: dict[str, Any] = {
        f.name: renumbered(value, getattr(like, f.name))
        for f in fields(state)
        if isinstance(value := getattr(state, f.name), State)
    }
    return replace(state, step=like.step, **nested)


class Method(Protocol[StateT]):
    """A method is a frozen dataclass of its options; `METHODS` lists them with their published defaults."""

    @property
    def name(self) -> str:
        """The method's name, for messages and checkpoints."""

    @property
    def forwards(self) -> int:
        """Forwards that one step uses."""

    def init(self, info: ModelInfo, seed: int) -> StateT:
        """The state before the first batch: all that will ever change.

        Raises:
            BundleError: the bundle lacks something the method needs, such as source statistics.
        """

    def step(self, state: StateT, images: ImageArray, network: Forward) -> tuple[Prediction, StateT]:
        """Predicts a batch and adapts to it; changes neither `state` nor `images`.

        Args:
            state: from `init` or the previous `step`.
            images: uint8 `[N, H, W, 3]`, N ≥ 1.
            network: what runs the forwards.
        """

    def predict(self, state: StateT, images: ImageArray, network: Forward) -> Prediction:
        """Predicts a batch with what has been learnt so far, and learns nothing from it: one forward.

        Args:
            state: from `init` or a `step`.
            images: uint8 `[N, H, W, 3]`, N ≥ 1.
            network: what runs the forward.
        """


AnyMethod = Method[Any]
