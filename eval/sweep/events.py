"""What a sweep hears from those who compute its cells."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .cell import Cell, Job


@dataclass(frozen=True)
class Seen:
    """So many more images of a cell were seen."""

    cell: Cell
    images: int


@dataclass(frozen=True)
class Again:
    """A cell was lost for this reason, and is begun again."""

    cell: Cell
    reason: str


@dataclass(frozen=True)
class Finished:
    """A cell's results: the document that `compute` gives."""

    cell: Cell
    document: Mapping[str, Any]


@dataclass(frozen=True)
class Failed:
    """A cell is given up for this reason."""

    cell: Cell
    reason: str


Event = Seen | Again | Finished | Failed
# Computes jobs in any order: one `Finished` or `Failed` for each. Closing it ends all work at once.
Runner = Callable[[Sequence[Job]], Generator[Event, None, None]]
