"""The cells of one graph put together: results as if all its methods had been streamed side by side.

Cells of the same domain, severity and seed see the same images in the same order, so they can be compared
image by image, though each was computed apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...engine.files import sha256_of_parts
from ..results.outcome import DomainResult, Run, Trace
from ..results.results_file import Results
from .cell import Cell, readable
from .cell_results import CellResults

HASH_LENGTH = 8
Stream = tuple[int, str, int | None]  # seed, domain, severity


@dataclass(frozen=True)
class Graph:
    """One graph of a sweep.

    Attributes:
        bundle, model, precision: SHA-256 and name of the bundle, and which graph of it.
        cells: how many each method has, by label, in the order of the grid.
        finished: how many of them are finished.
        streams: how many there are, over all seeds.
        results: of what can be compared: some methods on the streams that all of these have finished; None
            if nothing is finished.
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
        """Of its results file: readable, and no other graph has it, whatever a sweep may grow to."""
        return f"{readable(self.model, self.precision)}-{self.bundle[:HASH_LENGTH]}"

    @property
    def labels(self) -> list[str]:
        """The methods that are compared, the others with the first."""
        return list(self.results.methods) if self.results else []

    @property
    def compared(self) -> int:
        """On how many streams."""
        return sum(len(run.domains) for run in self.results.runs) if self.results else 0


def graphs(cells: Sequence[Cell], finished: Mapping[Cell, CellResults]) -> list[Graph]:
    """One for every graph, in the order of the cells."""
    members: dict[tuple[str, str, str], list[Cell]] = {}
    for cell in cells:
        members.setdefault((cell.bundle, cell.model, cell.precision), []).append(cell)
    return [_graph(*key, each, finished) for key, each in members.items()]


def comparable(done: Mapping[str, set[Stream]]) -> tuple[list[str], set[Stream]]:
    """Which methods to compare, and on which streams: on those that all of them have finished.

    Methods that have finished most come first, and as many of them are taken as make the table the largest,
    counted in cells. So one that has just been added does not take away what the others have.

    Args:
        done: what each method has finished, by label.
    """
    ranked = sorted(done, key=lambda label: -len(done[label]))
    chosen: list[str] = []
    streams: set[Stream] = set()
    for count in range(1, len(ranked) + 1):
        shared = set.intersection(*(done[label] for label in ranked[:count]))
        if shared and count * len(shared) >= len(chosen) * len(streams):
            chosen, streams = ranked[:count], shared
    return [label for label in done if label in chosen], streams


def _graph(
    bundle: str, model: str, precision: str, cells: Sequence[Cell], finished: Mapping[Cell, CellResults]
) -> Graph:
    streams = dict.fromkeys(map(_stream, cells))
    here = {(_stream(cell), cell.label): cell for cell in cells}
    names = list(dict.fromkeys(cell.label for cell in cells))
    done = {name: {_stream(c) for c in cells if c.label == name and c in finished} for name in names}
    labels, shared = comparable(done)
    rows = {stream: [here[stream, label] for label in labels] for stream in streams if stream in shared}
    return Graph(
        bundle,
        model,
        precision,
        {name: sum(cell.label == name for cell in cells) for name in names},
        {name: len(done[name]) for name in names},
        len(streams),
        _results(list(streams), rows, finished) if rows else None,
    )


def _stream(cell: Cell) -> Stream:
    return cell.seed, cell.domain, cell.severity


def _results(
    streams: Sequence[Stream],
    rows: Mapping[Stream, Sequence[Cell]],
    finished: Mapping[Cell, CellResults],
) -> Results:
    """The results of some of the streams, on each of which the same methods are finished."""
    found = [finished[cell] for row in rows.values() for cell in row]
    runs = []
    for seed in dict.fromkeys(seed for seed, *_ in streams):
        parts = [[finished[cell] for cell in row] for stream, row in rows.items() if stream[0] == seed]
        if parts:
            runs.append(_run(seed, parts, complete=all(s in rows for s in streams if s[0] == seed)))
    methods: dict[str, Any] = {}
    for each in found:
        methods.update(each.methods)
    protocol = replace(
        found[0].protocol,
        severities=tuple(dict.fromkeys(severity for *_, severity in streams if severity is not None)),
        seeds=tuple(dict.fromkeys(seed for seed, *_ in streams)),
        classes=", ".join(dict.fromkeys(each.protocol.classes for each in found)),
    )
    return Results(
        protocol,
        bundle=_facts(found, "bundle"),
        engine=_facts(found, "engine"),
        methods=methods,
        versions=_facts(found, "versions"),
        machine=_facts(found, "machine"),
        runs=runs,
        key_sha256=sha256_of_parts(*(cell.key for row in rows.values() for cell in row)),
    )


def _run(seed: int, streams: Sequence[Sequence[CellResults]], complete: bool) -> Run:
    """The streams of a seed one after the other, each given as the results of all methods on it."""
    domains = [_domain(place, cells) for place, cells in enumerate(streams)]
    traces = {
        label: _joined([cells[at].run.traces[label] for cells in streams])
        for at, label in enumerate(domains[0].methods)
    }
    return Run(seed, domains, traces, segment=len(domains), complete=complete)


def _domain(segment: int, cells: Sequence[CellResults]) -> DomainResult:
    methods = {label: part for each in cells for label, part in each.domain.methods.items()}
    seconds = sum(each.domain.seconds for each in cells)
    return replace(cells[0].domain, segment=segment, seconds=seconds, methods=methods)


def _joined(traces: Sequence[Trace]) -> Trace:
    """Traces one after the other."""
    return Trace(
        [images for trace in traces for images in trace.images],
        [correct for trace in traces for correct in trace.correct],
        {
            name: [value for trace in traces for value in trace.values.get(name, [None] * len(trace.images))]
            for name in dict.fromkeys(name for trace in traces for name in trace.values)
        },
    )


def _facts(found: Sequence[Results], name: str) -> dict[str, Any]:
    """What all results say of something; where they do not agree, everything that is said, as a text."""
    every: list[dict[str, Any]] = [getattr(each, name) for each in found]
    agreed = {}
    for key in dict.fromkeys(key for facts in every for key in facts):
        values = [facts.get(key) for facts in every]
        same = all(value == values[0] for value in values)
        agreed[key] = values[0] if same else "; ".join(dict.fromkeys(map(_text, values)))
    return agreed


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
