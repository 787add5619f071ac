"""The cells of one graph, merged into results as if all its methods had been evaluated side by side.

Cells of the same domain, severity and seed see the same images in the same order, so they can be compared
image by image, although they were computed separately.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...engine.errors import InputError
from ...engine.files import hash_texts
from ..results.outcome import DomainResult, Run, Trace
from ..results.results_file import Results
from .cell import Cell, readable_name
from .cell_results import CellResults

HASH_LENGTH = 8
Stream = tuple[int, str, int | None]  # seed, domain, severity


@dataclass(frozen=True)
class GraphResults:
    """One graph of a sweep.

    Attributes:
        bundle: SHA-256 of the bundle.
        model: name of the bundle.
        precision: which graph of the bundle.
        cells: number of cells by label of the method, in the order of the grid.
        finished: number of finished cells by label of the method.
        streams: number of streams, over all seeds.
        results: results of the compared methods on the streams that all of them have finished; None if no
            cell is finished.
    """

    bundle: str
    model: str
    precision: str
    cells: Mapping[str, int]
    finished: Mapping[str, int]
    streams: int
    results: Results | None

    @property
    def name(self) -> str:
        """Name of its results file: readable, and unique even when the sweep grows."""
        return f"{readable_name(self.model, self.precision)}-{self.bundle[:HASH_LENGTH]}"

    @property
    def labels(self) -> list[str]:
        """Labels of the compared methods; the others are compared with the first."""
        return list(self.results.methods) if self.results else []

    @property
    def compared(self) -> int:
        """Number of streams on which methods are compared."""
        return sum(len(run.domains) for run in self.results.runs) if self.results else 0


def merge_cells(cells: Sequence[Cell], finished: Mapping[Cell, CellResults]) -> list[GraphResults]:
    """Return a `GraphResults` for every graph of every bundle, in the order of the cells."""
    members: dict[tuple[str, str, str], list[Cell]] = {}
    for cell in cells:
        members.setdefault((cell.bundle, cell.model, cell.precision), []).append(cell)
    return [_merge_graph(*key, members_of_graph, finished) for key, members_of_graph in members.items()]


def choose_comparable(done: Mapping[str, set[Stream]]) -> tuple[list[str], set[Stream]]:
    """Return the methods to compare, and the streams that all of them have finished.

    Methods are ranked by the number of finished streams, and the first ones that together have the most cells
    in common are compared. So a method that has just been added does not shrink the table.

    Args:
        done: finished streams by label of the method.
    """
    ranked = sorted(done, key=lambda label: -len(done[label]))
    labels: list[str] = []
    streams: set[Stream] = set()
    for count in range(1, len(ranked) + 1):
        shared = set.intersection(*(done[label] for label in ranked[:count]))
        if shared and count * len(shared) >= len(labels) * len(streams):
            labels, streams = ranked[:count], shared
    return [label for label in done if label in labels], streams


def _merge_graph(
    bundle: str, model: str, precision: str, cells: Sequence[Cell], finished: Mapping[Cell, CellResults]
) -> GraphResults:
    streams = dict.fromkeys(map(_stream_of, cells))
    cell_of = {(_stream_of(cell), cell.label): cell for cell in cells}
    names = list(dict.fromkeys(cell.label for cell in cells))
    done = {name: {_stream_of(c) for c in cells if c.label == name and c in finished} for name in names}
    labels, shared = choose_comparable(done)
    rows = {stream: [cell_of[stream, label] for label in labels] for stream in streams if stream in shared}
    return GraphResults(
        bundle,
        model,
        precision,
        {name: sum(cell.label == name for cell in cells) for name in names},
        {name: len(done[name]) for name in names},
        len(streams),
        _merge_results(list(streams), rows, finished) if rows else None,
    )


def _stream_of(cell: Cell) -> Stream:
    return cell.seed, cell.domain, cell.severity


def _merge_results(
    streams: Sequence[Stream],
    rows: Mapping[Stream, Sequence[Cell]],
    finished: Mapping[Cell, CellResults],
) -> Results:
    """Merge the cells of some streams, on each of which the same methods are finished."""
    merged = [finished[cell] for row in rows.values() for cell in row]
    runs = []
    for seed in dict.fromkeys(seed for seed, *_ in streams):
        rows_of_seed = [[finished[cell] for cell in row] for stream, row in rows.items() if stream[0] == seed]
        if rows_of_seed:
            runs.append(
                _merge_run(seed, rows_of_seed, complete=all(s in rows for s in streams if s[0] == seed))
            )
    methods: dict[str, Any] = {}
    for cell_results in merged:
        methods.update(cell_results.methods)
    protocol = replace(
        merged[0].protocol,
        severities=tuple(dict.fromkeys(severity for *_, severity in streams if severity is not None)),
        seeds=tuple(dict.fromkeys(seed for seed, *_ in streams)),
        classes=", ".join(dict.fromkeys(result.protocol.classes for result in merged)),
    )
    return Results(
        protocol,
        bundle=_merge_facts(merged, "bundle"),
        engine=_merge_facts(merged, "engine"),
        methods=methods,
        versions=_merge_facts(merged, "versions"),
        machine=_merge_facts(merged, "machine"),
        runs=runs,
        key_sha256=hash_texts(*(cell.key for row in rows.values() for cell in row)),
    )


def _merge_run(seed: int, streams: Sequence[Sequence[CellResults]], complete: bool) -> Run:
    """Return the streams of a seed as one run; each is a sequence with the cell of every method."""
    domains = [_merge_domain(segment, cells) for segment, cells in enumerate(streams)]
    traces = {
        label: _join_traces([cells[at].run.traces[label] for cells in streams])
        for at, label in enumerate(domains[0].methods)
    }
    return Run(seed, domains, traces, segment=len(domains), complete=complete)


def _merge_domain(segment: int, cells: Sequence[CellResults]) -> DomainResult:
    methods = {label: result for cell in cells for label, result in cell.domain.methods.items()}
    if any(cell.domain.unreadable != cells[0].domain.unreadable for cell in cells):
        raise InputError(
            f"expected cells of {cells[0].domain.name} that skipped the same unreadable images, found "
            "others; remove the files of these cells, and repeat the command"
        )
    seconds = sum(cell.domain.seconds for cell in cells)
    return replace(cells[0].domain, segment=segment, seconds=seconds, methods=methods)


def _join_traces(traces: Sequence[Trace]) -> Trace:
    """Return one trace with the points of all."""
    return Trace(
        [images for trace in traces for images in trace.images],
        [correct for trace in traces for correct in trace.correct],
        {
            name: [value for trace in traces for value in trace.values.get(name, [None] * len(trace.images))]
            for name in dict.fromkeys(name for trace in traces for name in trace.values)
        },
    )


def _merge_facts(results: Sequence[Results], name: str) -> dict[str, Any]:
    """Return an attribute shared by all results; values that differ are listed in a text."""
    fact_sheets: list[dict[str, Any]] = [getattr(result, name) for result in results]
    agreed = {}
    for key in dict.fromkeys(key for facts in fact_sheets for key in facts):
        values = [facts.get(key) for facts in fact_sheets]
        same = all(value == values[0] for value in values)
        agreed[key] = values[0] if same else "; ".join(dict.fromkeys(map(_format, values)))
    return agreed


def _format(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
