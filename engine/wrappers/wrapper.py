"""The common base of the wrappers of methods."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from ..interface.method import (
    AnyBoundMethod,
    AnyMethod,
    Binding,
    count_pull_backs,
    count_views,
    get_view_recipe,
    list_activation_uses,
)
from ..interface.method_options import validate
from ..interface.view_recipe import ViewRecipe
from ..model import ActivationUse


@dataclass(frozen=True)
class Wrapper:
    """A method with something added to it; its options come after those of the wrapped method."""

    method: AnyMethod

    def __post_init__(self) -> None:
        validate(self)

    @property
    def name(self) -> str:
        """The method's name."""
        return self.method.name

    @property
    def pull_backs(self) -> float:
        """Computations of exact gradients in a step of the method."""
        return count_pull_backs(self.method)

    @property
    def activations(self) -> ActivationUse | None:
        """Activations that the method re-centres."""
        return next(iter(list_activation_uses([self.method])), None)

    @property
    def views(self) -> int:
        """Views of each image that the method looks at."""
        return count_views(self.method)

    @property
    def view_recipe(self) -> ViewRecipe:
        """Recipe of these views."""
        return get_view_recipe(self.method)

    @property
    def forwards(self) -> int:
        """Forwards that one step of the method uses; the occasional ones of the wrapper do not count."""
        return self.method.forwards


WrapperT = TypeVar("WrapperT", bound=AnyMethod)


@dataclass(frozen=True, eq=False)
class BoundWrapper(Binding[WrapperT], Generic[WrapperT]):
    """A bound wrapper.

    Attributes:
        inner: the wrapped method, bound to the same model.
    """

    inner: AnyBoundMethod
