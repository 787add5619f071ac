"""The results of a sweep as tables: a row per cell as CSV, and of each graph what `fozo adapt` shows."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..results.average import averages, rate_of
from ..results.outcome import Run
from ..results.table import marks, summary
from .cell import Cell
from .cell_results import CellResults
from .graph import HASH_LENGTH, Graph


def csv_rows(finished: Mapping[Cell, CellResults]) -> str:
    """A row per cell: rates in 0..1, NLL in nats, `seconds` of the method's steps, `peak_bytes` resident."""
    rows = [_row(cell, found) for cell, found in finished.items()]
    stream = io.StringIO()
    if rows:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return stream.getvalue()


def _row(cell: Cell, found: CellResults) -> dict[str, Any]:
    part = found.part
    return {
        "model": cell.model,
        "bundle_sha256": cell.bundle,
        "precision": cell.precision,
        "method": cell.label,
        "domain": cell.domain,
        "severity": cell.severity,
        "seed": cell.seed,
        **{rate: rate_of(part, rate) for rate in ("accuracy", "top5_accuracy", "ece", "nll")},
        "images": part.tally.images,
        "correct": part.tally.top1,
        "batches": part.batches,
        "forwards": part.forwards,
        "guarded": part.guarded,
        "seconds": part.seconds,
        "images_per_second": part.images_per_second,
        "peak_bytes": part.peak_bytes,
        "onnxruntime": found.versions["onnxruntime"],
        "cpu": found.machine["model"],
        "file": f"{cell.name}.json",
    }


@dataclass(frozen=True)
class Summary:
    """One method on one graph, averaged.

    Attributes:
        bundle, model, precision, method: SHA-256, name, which graph, and the method's label.
        cells, finished: how many there are, and how many of them are finished.
        compared: how many of these are on streams that all compared methods have finished; 0 if this method
            is not compared. Averages are of these cells; of whole seeds only, where there are any.
        domains: by name, averages as below, over severities and then seeds.
        average: as in `fozo.eval.results.average.averages`, or None.
    """

    bundle: str
    model: str
    precision: str
    method: str
    cells: int
    finished: int
    compared: int
    domains: Mapping[str, Mapping[str, Any]]
    average: Mapping[str, Any] | None


def summaries(graphs: Sequence[Graph]) -> list[Summary]:
    """One for every method on every graph of which any cell is finished."""
    made = []
    for graph in graphs:
        runs = graph.results.runs if graph.results else []
        whole, parts = averages(runs), by_domain(runs)
        for label, finished in graph.finished.items():
            if finished:
                domains = {name: found[label] for name, found in parts.items() if label in found}
                compared = graph.compared if label in whole else 0
                key = (graph.bundle, graph.model, graph.precision, label, graph.cells[label])
                made.append(Summary(*key, finished, compared, domains, whole.get(label)))
    return made


def by_domain(runs: Sequence[Run]) -> dict[str, dict[str, dict[str, Any]]]:
    """Averages by name of the domain and by method, over severities and then seeds."""
    names = dict.fromkeys(domain.name for run in runs for domain in run.domains)
    parts = {
        name: [replace(run, domains=[each for each in run.domains if each.name == name]) for run in runs]
        for name in names
    }
    return {name: averages(part) for name, part in parts.items()}


def text(graphs: Sequence[Graph]) -> str:
    """Tables for a terminal: by graph, accuracy by domain and method, then the summary of all methods."""
    models = [(each.bundle, each.model) for each in graphs]
    parts = []
    for graph in graphs:
        same = len({bundle for bundle, model in models if model == graph.model}) > 1
        title = f"{graph.model}{f' {graph.bundle[:HASH_LENGTH]}' if same else ''} {graph.precision}"
        if graph.results:
            runs = graph.results.runs
            parts.append("\n".join([title, *_notes(graph), _accuracies(runs), "", summary(runs)]))
    return "\n\n".join(parts)


def _notes(graph: Graph) -> list[str]:
    """What is not in the tables, as not all is finished."""
    out = [label for label in graph.cells if label not in graph.labels]
    notes = []
    if graph.results and graph.compared < graph.streams:
        whole, seeds = sum(run.complete for run in graph.results.runs), len(graph.results.protocol.seeds)
        notes.append(
            f"{graph.compared:,} of {graph.streams:,} streams are finished with all of these methods; "
            + (f"means are over {whole} of {seeds} seeds" if whole else "no seed is whole")
        )
    if out:
        missing = (f"{label} ({graph.finished[label]:,} of {graph.cells[label]:,} cells)" for label in out)
        notes.append(f"without {', '.join(missing)}")
    return notes


def _accuracies(runs: Sequence[Run]) -> str:
    found = by_domain(runs)
    rows = [["top-1 accuracy, %", *(f"{label}  " for label in averages(runs))]]
    for name, values in found.items():
        best = max(each["accuracy"] for each in values.values())
        rows.append([name, *(_accuracy(each, best, len(values)) for each in values.values())])
    return _aligned(rows)


def _accuracy(values: Mapping[str, Any], best: float, methods: int) -> str:
    spread = values["accuracy_std"]
    text = f"{100 * values['accuracy']:.2f}" + ("" if spread is None else f" ± {100 * spread:.2f}")
    return text + marks(best=values["accuracy"] == best and methods > 1, noise=bool(values["gain_is_noise"]))


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        row[0].ljust(widths[0])
        + "".join(cell.rjust(width + 2) for cell, width in zip(row[1:], widths[1:], strict=True))
        for row in rows
    )
    return "\n".join(lines)
