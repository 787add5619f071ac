"""A sweep in a folder, which can be interrupted and continued.

DIR/sweep.json           the grid
DIR/cells/<name>.json    a finished cell (docs/results.md)
DIR/sweep.csv            a row per finished cell
DIR/results/<name>.json  for each graph, its cells as one results file
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..._version import __version__
from ...engine.errors import FozoError, InputError, OutputError, reason
from ...engine.files import write_atomic
from ...engine.ordinary_files import read_json
from ...engine.records import load_record, to_dict
from .cell import Cell, Job
from .cell_results import CellResults, parse_cell_results, read_cell_results
from .events import Failed, Finished, Processed, Retried, Runner
from .graph_results import GraphResults, merge_cells
from .sweep_table import format_csv

SCHEMA: Literal[1] = 1
GRID_FILE = "sweep.json"
TABLE_FILE = "sweep.csv"
CELLS_FOLDER = "cells"
RESULTS_FOLDER = "results"


class SweepError(FozoError):
    """Cells of a sweep failed."""


@dataclass(frozen=True)
class Grid:
    """The content of `sweep.json`.

    Attributes:
        schema: version of the file's format.
        fozo: version of fozo that wrote the file.
        grid: distinct values along each axis, for people.
        cells: names of all cells.
    """

    schema: Literal[1]
    fozo: str
    grid: Mapping[str, Any]
    cells: tuple[str, ...]


@dataclass
class Sweep:
    """A grid and its finished cells.

    Attributes:
        folder: folder of the files.
        jobs: one per cell.
        finished: results by cell.
        failed: reasons by cell that was given up.
        notes: warnings about existing files.
    """

    folder: Path
    jobs: Sequence[Job]
    finished: dict[Cell, CellResults] = field(default_factory=dict)
    failed: dict[Cell, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @classmethod
    def open(cls, folder: Path, jobs: Sequence[Job]) -> Sweep:
        """Continue the sweep in a folder, or create it; finished cells are read and not computed again.

        Raises:
            InputError: the folder holds another sweep. Cells can be added to a grid, but not removed.
            OutputError: the folder cannot be written.
        """
        sweep = cls(folder, jobs)
        _check_grid(folder / GRID_FILE, {job.cell.name for job in jobs})
        try:
            for name in (CELLS_FOLDER, RESULTS_FOLDER):
                (folder / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot make the folder {folder}: {reason(error)}; choose another") from error
        grid = Grid(SCHEMA, __version__, _axes(jobs), tuple(job.cell.name for job in jobs))
        text = json.dumps(to_dict(grid), indent=1, ensure_ascii=False)
        write_atomic(folder / GRID_FILE, f"{text}\n".encode())
        sweep._read_finished()
        return sweep

    @property
    def pending(self) -> list[Job]:
        """Jobs that are neither finished nor given up."""
        return [job for job in self.jobs if job.cell not in self.finished and job.cell not in self.failed]

    def save_tables(self) -> list[GraphResults]:
        """Write the finished cells as one table and as results per graph, and return the graphs.

        Raises:
            OutputError: a file cannot be written.
        """
        ordered = {job.cell: self.finished[job.cell] for job in self.jobs if job.cell in self.finished}
        write_atomic(self.folder / TABLE_FILE, format_csv(ordered).encode())
        merged = merge_cells([job.cell for job in self.jobs], ordered)
        for graph in merged:
            if graph.results is not None:
                graph.results.save(self.folder / RESULTS_FOLDER / f"{graph.name}.json")
        return merged

    def cell_file(self, cell: Cell) -> Path:
        """Return the path of a cell's file."""
        return self.folder / CELLS_FOLDER / f"{cell.name}.json"

    def run(self, runner: Runner, notify: Callable[[str], None]) -> Iterator[int]:
        """Compute the pending cells, and write each of them as soon as it is finished.

        Closing the iterator, or an error, stops all work.

        Args:
            runner: computes the jobs.
            notify: receives a line for every cell that failed or is retried.

        Yields:
            Numbers of images that were processed for the first time or given up. They add up to the images
            of all pending cells.

        Raises:
            OutputError: a cell cannot be written.
        """
        if not self.pending:
            return
        remaining = {job.cell: job.cell.images for job in self.pending}
        processed = dict.fromkeys(remaining, 0)  # since the cell was last started
        with closing(runner(self.pending)) as events:
            for event in events:
                cell = event.cell
                if isinstance(event, Processed):
                    processed[cell] += event.images
                    advance = max(0, processed[cell] - (cell.images - remaining[cell]))
                elif isinstance(event, Retried):
                    notify(f"Again: {cell.title}: {event.reason}")
                    processed[cell] = advance = 0
                else:
                    self._record(event, notify)
                    advance = remaining[cell]
                remaining[cell] -= advance
                yield advance

    def check_failures(self) -> None:
        """Raise if cells failed.

        Raises:
            SweepError: says how many, and the first reason.
        """
        if self.failed:
            cell, message = next(iter(self.failed.items()))
            raise SweepError(
                f"{len(self.failed):,} of {len(self.jobs):,} cells failed, such as {cell.title}: {message}; "
                "the same command tries them again"
            )

    def _record(self, event: Finished | Failed, notify: Callable[[str], None]) -> None:
        """Save the results of a finished cell, or note why it failed."""
        cell = event.cell
        if isinstance(event, Finished):
            try:
                cell_results = parse_cell_results(event.document, cell)
                cell_results.save(self.cell_file(cell))
                self.finished[cell] = cell_results
                return
            except InputError as error:
                event = Failed(cell, str(error))
        self.failed[cell] = event.reason
        notify(f"Failed: {cell.title}: {event.reason}")

    def _read_finished(self) -> None:
        paths = {self.cell_file(job.cell): job.cell for job in self.jobs}
        for path in sorted((self.folder / CELLS_FOLDER).glob("*.json")):
            if path not in paths:
                self.notes.append(f"{path} is no cell of this sweep and is ignored")
                continue
            try:
                self.finished[paths[path]] = read_cell_results(path, paths[path])
            except InputError as error:
                self.notes.append(f"{path} cannot be used and is computed again: {error}")


def read_grid(path: Path) -> Grid:
    """Read the file of a grid.

    Raises:
        InputError: it cannot be read, or holds something else.
    """
    try:
        return load_record(Grid, read_json(path), path.name)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} is not the grid of a sweep ({reason(error)}); remove it, or name another folder"
        ) from error


def _check_grid(path: Path, names: set[str]) -> None:
    """Raise if a grid file has cells that are not among these names."""
    if not path.exists():
        return
    grid = read_grid(path)
    missing = sorted(set(grid.cells) - names)
    if missing:
        other = f" (it was made by fozo {grid.fozo})" if grid.fozo != __version__ else ""
        raise InputError(
            f"{path.parent} holds a sweep with {len(missing):,} cells that are not in this one, such as "
            f"{missing[0]}{other}; name another folder with --out, or include all of the old grid"
        )


def _axes(jobs: Sequence[Job]) -> dict[str, list[Any]]:
    """Return the distinct values along each axis of the grid, in order."""

    def values(read: Callable[[Job], Any]) -> list[Any]:
        return list({json.dumps(read(job)): read(job) for job in jobs}.values())

    return {
        "bundles": values(
            lambda job: {"sha256": job.cell.bundle, "model": job.cell.model, "path": job.bundle}
        ),
        "precisions": values(lambda job: job.cell.precision),
        "methods": values(
            lambda job: {
                "label": job.cell.label,
                "method": job.cell.method,
                "options": job.cell.options,
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
