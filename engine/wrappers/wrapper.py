"""What wrappers of methods have in common."""

from __future__ import annotations

from dataclasses import dataclass

from ..interface.method import AnyMethod
from ..interface.options import validate


@dataclass(frozen=True)
class Wrapper:
    """Another method with something added to it; its options come after those of that method."""

    method: AnyMethod

    def __post_init__(self) -> None:
        validate(self)

    @property
    def name(self) -> str:
        """The method's name."""
        return self.method.name

    @property
    def forwards(self) -> int:
        """Forwards that one step of the method uses; what the wrapper needs now and then is not in it."""
        return self.method.forwards
