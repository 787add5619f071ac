"""The recipe of the views that a method wants to see of each image, as a value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from ..errors import InputError

ViewKind = Literal["crops", "augmix"]
VIEW_KINDS: tuple[ViewKind, ...] = get_args(ViewKind)
SMALLEST_AREA = 0.08  # TPT, official code


@dataclass(frozen=True)
class ViewRecipe:
    """The views of an image: view 0 is the ordinary crop, the others are random.

    Attributes:
        count: number of views, the ordinary one included.
        kind: `crops` are random crops and flips; `augmix` mixes operations of AugMix into each of them.
        smallest_area: smallest area that a crop may show, as a share of the image's.

    Raises:
        InputError: a value is out of range.
    """

    count: int
    kind: ViewKind = "crops"
    smallest_area: float = SMALLEST_AREA

    def __post_init__(self) -> None:
        if type(self.count) is not int or self.count < 1:
            raise InputError(f"expected a number of views of at least 1, found {self.count!r}")
        if self.kind not in VIEW_KINDS or not 0 < self.smallest_area <= 1:
            raise InputError(
                f"expected views of the kind {' or '.join(VIEW_KINDS)} that show more than 0 and up to 1 of "
                f"an image's area, found {self.kind!r} and {self.smallest_area!r}"
            )
