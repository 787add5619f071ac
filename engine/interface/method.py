"""The contract of a method: options, bound to a model, whose steps are generators of requests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from ..model import ActivationUse, FloatArray, ImageArray, ModelInfo
from ..state import State as State
from ..state import StateT as StateT
from ..state import iterate_values as iterate_values
from ..state import list_fields as list_fields
from ..state import optional_array as optional_array
from ..state import replace_step_counts as replace_step_counts
from ..state import state_list as state_list
from ..state import variable_length_array as variable_length_array
from ..statistics.objective import softmax
from .request import Requests
from .view_recipe import ViewRecipe


@dataclass(frozen=True)
class Prediction:
    """The answer to a batch.

    Attributes:
        logits: float32 `[N, K]`.
        forwards: forwards over the batch that were used for it, beside those of gradients. A method that
            looks at many views of an image counts them: it is the mean number of views per image.
        pull_backs: computations of exact gradients over the batch, each with a forward of its own that
            `forwards` does not count; 0.25 if a quarter of its images had one, 0 for methods that need
            forwards only.
        loss: the adaptation loss, where the method has one.
        diagnostics: numbers that a person would plot (`epsilon`, `rate`, `entropy`, …).
        fallback: the method's loss, logits or state was not finite; the frozen network answered.
        guarded: the guard left the batch to the frozen network.
    """

    logits: FloatArray
    forwards: float
    loss: float | None = None
    diagnostics: Mapping[str, float] = field(default_factory=dict)
    fallback: bool = False
    guarded: bool = False
    pull_backs: float = 0

    @property
    def frozen(self) -> bool:
        """True if the frozen network answered instead of the method."""
        return self.fallback or self.guarded

    @property
    def probabilities(self) -> FloatArray:
        """Softmax of the logits, float64 `[N, K]`."""
        return softmax(self.logits)


# One step: yields requests, is sent their outputs, returns the prediction and the next state.
Step = Requests[tuple[Prediction, StateT]]


class BoundMethod(Protocol[StateT]):
    """A method bound to a model: everything that depends on options and model alone is computed."""

    @property
    def name(self) -> str:
        """The method's name, for messages and checkpoints."""

    @property
    def forwards(self) -> int:
        """Forwards that one step uses."""

    @property
    def model(self) -> ModelInfo:
        """The model that the method adapts."""

    def init(self, seed: int) -> StateT:
        """Return the state before the first batch: everything that will ever change."""

    def step(self, state: StateT, images: ImageArray) -> Step[StateT]:
        """Predict a batch and adapt to it; change neither `state` nor `images`.

        Args:
            state: from `init` or the previous `step`.
            images: uint8 `[N, H, W, 3]`, N ≥ 1; for methods with views a `ViewBatch`.
        """

    def predict(self, state: StateT, images: ImageArray) -> Requests[Prediction]:
        """Predict a batch with the current state, without adapting to it: one forward.

        Args:
            state: from `init` or a `step`.
            images: as for `step`.
        """


class Method(Protocol[StateT]):
    """A method is a frozen dataclass of its options; `METHODS` lists them with their published defaults."""

    @property
    def name(self) -> str:
        """The method's name, for messages and checkpoints."""

    @property
    def forwards(self) -> int:
        """Forwards that one step uses."""

    def bind(self, model: ModelInfo) -> BoundMethod[StateT]:
        """Return the method bound to a model.

        Raises:
            BundleError: the bundle lacks something the method needs, such as source statistics.
        """


def count_pull_backs(method: Method[Any]) -> float:
    """Return the computations of exact gradients in a step: 0 for a method that needs forwards only.

    A method that is not forward-only says so by a property `pull_backs`.
    """
    return float(getattr(method, "pull_backs", 0))


def list_activation_uses(methods: Iterable[Method[Any]]) -> list[ActivationUse]:
    """Return the activations that methods re-centre, as `Network.open` takes them.

    A method that re-centres any says so by a property `activations`.
    """
    uses = (getattr(method, "activations", None) for method in methods)
    return [use for use in uses if use is not None]


def count_views(method: Method[Any]) -> int:
    """Return the views of each image that a method looks at: 1 for a method that takes images as they are.

    A method that looks at more says so by a property or an option `views`. Its images are then a `ViewBatch`.
    """
    return int(getattr(method, "views", 1))


def get_view_recipe(method: Method[Any]) -> ViewRecipe:
    """Return the recipe of a method's views: its property `view_recipe`, or else crops of the usual size."""
    recipe: ViewRecipe | None = getattr(method, "view_recipe", None)
    return ViewRecipe(count_views(method)) if recipe is None else recipe


AnyMethod = Method[Any]
AnyBoundMethod = BoundMethod[Any]
OptionsT = TypeVar("OptionsT", bound=Method[Any])


@dataclass(frozen=True, eq=False)
class Binding(Generic[OptionsT]):
    """Base of our bound methods: the options and the model.

    Attributes:
        options: the method that was bound.
        model: the model that it adapts.
    """

    options: OptionsT
    model: ModelInfo

    @property
    def name(self) -> str:
        """The method's name."""
        return self.options.name

    @property
    def forwards(self) -> int:
        """Forwards that one step uses."""
        return self.options.forwards
