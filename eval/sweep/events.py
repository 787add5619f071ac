"""Events that a runner reports while it computes the cells of a sweep."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .cell import Cell, Job


@dataclass(frozen=True)
class Processed:
    """More images of a cell were processed."""

    cell: Cell
    images: int


@dataclass(frozen=True)
class Retried:
    """A cell was lost and is computed again from its beginning."""

    cell: Cell
    reason: str


@dataclass(frozen=True)
class Finished:
    """A cell is finished; `document` is that of `compute`."""

    cell: Cell
    document: Mapping[str, Any]


@dataclass(frozen=True)
class Failed:
    """A cell is given up."""

    cell: Cell
    reason: str


Event = Processed | Retried | Finished | Failed
# Computes jobs in any order, and yields one `Finished` or `Failed` for each. Closing it stops all work.
Runner = Callable[[Sequence[Job]], Generator[Event, None, None]]
