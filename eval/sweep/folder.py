"""A sweep in a folder: the grid first, then a file for every finished cell; begun again, it goes on.

DIR/sweep.json           the grid
DIR/cells/<name>.json    one cell each (docs/results.md), written once it is whole
DIR/sweep.csv            a row per finished cell
DIR/results/<name>.json  for each graph, its cells as one results file
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..._version import __version__
from ...engine.errors import FozoError, InputError, OutputError, reason
from ...engine.files import write_atomic
from . import cell_results as results
from .cell import Cell, Job
from .cell_results import CellResults
from .events import Again, Failed, Finished, Runner, Seen
from .graph import Graph, graphs
from .sweep_table import csv_rows

SCHEMA = 1
GRID_FILE = "sweep.json"
TABLE_FILE = "sweep.csv"
CELLS_FOLDER = "cells"
RESULTS_FOLDER = "results"


class SweepError(FozoError):
    """Cells of a sweep failed."""


@dataclass
class Sweep:
    """A grid, and what is finished of it.

    Attributes:
        folder: where it lives.
        jobs: one per cell.
        finished: results by cell.
        failed: cells that were given up, with the reason.
        notes: what was odd about files that were there already, for people.
    """

    folder: Path
    jobs: Sequence[Job]
    finished: dict[Cell, CellResults] = field(default_factory=dict)
    failed: dict[Cell, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @classmethod
    def open(cls, folder: Path, jobs: Sequence[Job]) -> Sweep:
        """Takes up a folder, or makes it; finished cells are read, and not done again.

        Raises:
            InputError: the folder holds another sweep. A grid may grow, but not lose cells.
            OutputError: the folder cannot be written.
        """
        sweep = cls(folder, jobs)
        _check_same(folder / GRID_FILE, {job.cell.name for job in jobs})
        try:
            for name in (CELLS_FOLDER, RESULTS_FOLDER):
                (folder / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot make the folder {folder}: {reason(error)}; choose another") from error
        document = {"schema": SCHEMA, "fozo": __version__, "grid": _axes(jobs), "cells": _names(jobs)}
        write_atomic(folder / GRID_FILE, (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode())
        sweep._read_finished()
        return sweep

    @property
    def pending(self) -> list[Job]:
        """What is neither finished nor given up."""
        return [job for job in self.jobs if job.cell not in self.finished and job.cell not in self.failed]

    def save_tables(self) -> list[Graph]:
        """Writes what is finished as one table, and the results of each graph; gives the graphs.

        Raises:
            OutputError: a file cannot be written.
        """
        ordered = {job.cell: self.finished[job.cell] for job in self.jobs if job.cell in self.finished}
        write_atomic(self.folder / TABLE_FILE, csv_rows(ordered).encode())
        found = graphs([job.cell for job in self.jobs], ordered)
        for graph in found:
            if graph.results is not None:
                graph.results.save(self.folder / RESULTS_FOLDER / f"{graph.name}.json")
        return found

    def path(self, cell: Cell) -> Path:
        """Of a cell's file."""
        return self.folder / CELLS_FOLDER / f"{cell.name}.json"

    def run(self, runner: Runner, say: Callable[[str], None]) -> Iterator[int]:
        """Computes what is pending, and writes every cell as soon as it is finished.

        Args:
            runner: who computes.
            say: is told of cells that failed or are begun again.

        Yields:
            Numbers of images that were seen for the first time, or are given up: all of them in the end.

        Raises:
            OutputError: a cell cannot be written. Closing the iterator, or an error, ends all work.
        """
        if not self.pending:
            return
        left = {job.cell: job.cell.images for job in self.pending}
        seen = dict.fromkeys(left, 0)
        with closing(runner(self.pending)) as events:
            for event in events:
                cell = event.cell
                if isinstance(event, Seen):
                    seen[cell] += event.images
                    news = max(0, seen[cell] - (cell.images - left[cell]))
                elif isinstance(event, Again):
                    say(f"Again: {cell.title}: {event.reason}")
                    seen[cell] = news = 0
                else:
                    self._end(event, say)
                    news = left[cell]
                left[cell] -= news
                yield news

    def _end(self, event: Finished | Failed, say: Callable[[str], None]) -> None:
        cell = event.cell
        if isinstance(event, Finished):
            try:
                found = results.parse(event.document, cell)
                found.save(self.path(cell))
                self.finished[cell] = found
                return
            except InputError as error:
                event = Failed(cell, str(error))
        self.failed[cell] = event.reason
        say(f"Failed: {cell.title}: {event.reason}")

    def _read_finished(self) -> None:
        paths = {self.path(job.cell): job.cell for job in self.jobs}
        for path in sorted((self.folder / CELLS_FOLDER).glob("*.json")):
            if path not in paths:
                self.notes.append(f"{path} is no cell of this sweep; it is left as it is")
                continue
            try:
                self.finished[paths[path]] = results.read(path, paths[path])
            except InputError as error:
                self.notes.append(f"{path} cannot be used and is done again: {error}")


def _check_same(path: Path, names: set[str]) -> None:
    """Refuses a folder with a grid that has other cells than these."""
    if not path.exists():
        return
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        old, version = set(content["cells"]), content["fozo"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is not the grid of a sweep ({reason(error)}); remove it, or name another folder"
        ) from error
    gone = sorted(old - names)
    if gone:
        other = f" (it was made by fozo {version})" if version != __version__ else ""
        raise InputError(
            f"{path.parent} holds a sweep with {len(gone):,} cells that are not in this one, such as "
            f"{gone[0]}{other}; name another folder with --out, or ask for all of the old grid and more"
        )


def _names(jobs: Sequence[Job]) -> list[str]:
    return [job.cell.name for job in jobs]


def _axes(jobs: Sequence[Job]) -> dict[str, list[Any]]:
    """Every value that occurs of what may differ, in order."""

    def values(of: Callable[[Job], Any]) -> list[Any]:
        return list({json.dumps(of(job)): of(job) for job in jobs}.values())

    return {
        "bundles": values(
            lambda job: {"sha256": job.cell.bundle, "model": job.cell.model, "path": job.bundle}
        ),
        "precisions": values(lambda job: job.cell.precision),
        "methods": values(
            lambda job: {
                "label": job.cell.label,
                "method": job.cell.method,
                "options": dict(job.cell.options),
            }
        ),
        "domains": values(lambda job: {"name": job.cell.domain, "severity": job.cell.severity}),
        "seeds": values(lambda job: job.cell.seed),
        "protocols": values(
            lambda job: {
                name: getattr(job.cell, name)
                for name in ("dataset", "subset", "classes", "batch_size", "provider")
            }
        ),
    }
