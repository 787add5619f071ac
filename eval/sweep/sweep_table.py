"""The results of a sweep as tables: a CSV row per cell, and per graph the tables of `fozo adapt`."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...engine.bundle.origin import describe_origin
from ..results.average import MethodAverage, compute_averages, get_rate
from ..results.csv_text import protect_cell
from ..results.data_notes import describe_notes
from ..results.label_check import describe_chance
from ..results.outcome import Run
from ..results.results_file import Results
from ..results.table import format_marks, format_summary
from .cell import Cell
from .cell_results import CellResults
from .graph_results import HASH_LENGTH, GraphResults


def format_csv(finished: Mapping[Cell, CellResults]) -> str:
    """Return a CSV row per cell: rates in 0..1, NLL in nats, seconds of the method's steps, peak memory."""
    rows = [_format_row(cell, results) for cell, results in finished.items()]
    stream = io.StringIO()
    if rows:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: protect_cell(value) for key, value in row.items()} for row in rows)
    return stream.getvalue()


def _format_row(cell: Cell, results: CellResults) -> dict[str, Any]:
    result = results.method_result
    return {
        "model": cell.model,
        "bundle_sha256": cell.bundle,
        "precision": cell.precision,
        "head": cell.head or "",
        "method": cell.label,
        "domain": cell.domain,
        "severity": cell.severity,
        "seed": cell.seed,
        **{rate: get_rate(result, rate) for rate in ("accuracy", "top5_accuracy", "ece", "nll")},
        "images": result.tally.images,
        "correct": result.tally.top1,
        "batches": result.batches,
        "forwards": result.forwards,
        "pull_backs": result.pull_backs,
        "guarded": result.guarded,
        "seconds": result.seconds,
        "images_per_second": result.images_per_second,
        "peak_bytes": result.peak_bytes,
        "onnxruntime": results.versions["onnxruntime"],
        "cpu": results.machine["model"],
        "file": f"{cell.name}.json",
    }


@dataclass(frozen=True)
class Summary:
    """One method on one graph, averaged.

    Attributes:
        bundle: SHA-256 of the bundle.
        model: name of the bundle.
        precision: which graph of the bundle.
        method: label of the method.
        cells: number of cells.
        finished: number of finished cells.
        compared: number of finished cells on streams that all compared methods have finished; 0 if this
            method is not compared. Averages are over these cells, and over complete seeds only, if any.
        domains: averages by name of the domain, over severities and then seeds.
        average: averages over everything, or None.
    """

    bundle: str
    model: str
    precision: str
    method: str
    cells: int
    finished: int
    compared: int
    domains: Mapping[str, MethodAverage]
    average: MethodAverage | None


def summarize_graphs(graphs: Sequence[GraphResults]) -> list[Summary]:
    """Return a summary for every method on every graph with a finished cell."""
    rows = []
    for graph in graphs:
        runs = graph.results.runs if graph.results else []
        average, by_name = compute_averages(runs), average_by_domain(runs)
        for label, finished in graph.finished.items():
            if finished:
                domains = {name: rates[label] for name, rates in by_name.items() if label in rates}
                compared = graph.compared if label in average else 0
                key = (graph.bundle, graph.model, graph.precision, label, graph.cells[label])
                rows.append(Summary(*key, finished, compared, domains, average.get(label)))
    return rows


def average_by_domain(runs: Sequence[Run]) -> dict[str, dict[str, MethodAverage]]:
    """Return averages by name of the domain and by method, over severities and then seeds."""
    names = dict.fromkeys(domain.name for run in runs for domain in run.domains)
    selected = {
        name: [
            replace(run, domains=[domain for domain in run.domains if domain.name == name]) for run in runs
        ]
        for name in names
    }
    return {name: compute_averages(selection) for name, selection in selected.items()}


def format_tables(graphs: Sequence[GraphResults]) -> str:
    """Return tables for a terminal: for each graph, accuracy by domain and method, then a summary."""
    models = [(graph.bundle, graph.model) for graph in graphs]
    blocks = []
    for graph in graphs:
        same = len({bundle for bundle, model in models if model == graph.model}) > 1
        title = f"{graph.model}{f' {graph.bundle[:HASH_LENGTH]}' if same else ''} {graph.precision}"
        if graph.results:
            runs = graph.results.runs
            blocks.append(
                "\n".join(
                    [
                        title,
                        *_list_notes(graph),
                        _format_accuracies(runs),
                        "",
                        format_summary(runs),
                        *_describe_bundle(graph.results),
                    ]
                )
            )
    return "\n\n".join(blocks)


def _describe_bundle(results: Results) -> list[str]:
    """Return weights, preparation of images, notes on these, and the suspicion that labels are wrong."""
    classes = results.bundle.get("classes")
    suspicion = describe_chance(results.runs, classes) if isinstance(classes, int) else None
    lines = [describe_origin(results.bundle)] if "preprocessing" in results.bundle else []
    lines += [f"Note: {note}" for note in describe_notes(results.runs)]
    return lines + ([f"Warning: {suspicion}"] if suspicion else [])


def _list_notes(graph: GraphResults) -> list[str]:
    """Return notes on what the tables lack because cells are not finished."""
    omitted = [label for label in graph.cells if label not in graph.labels]
    notes = []
    if graph.results and graph.compared < graph.streams:
        complete, seeds = sum(run.complete for run in graph.results.runs), len(graph.results.protocol.seeds)
        notes.append(
            f"{graph.compared:,} of {graph.streams:,} streams are finished with all of these methods; "
            + (f"means are over {complete} of {seeds} seeds" if complete else "no seed is whole")
        )
    if omitted:
        missing = (
            f"{label} ({graph.finished[label]:,} of {graph.cells[label]:,} cells)" for label in omitted
        )
        notes.append(f"without {', '.join(missing)}")
    return notes


def _format_accuracies(runs: Sequence[Run]) -> str:
    by_name = average_by_domain(runs)
    rows = [["top-1 accuracy, %", *(f"{label}  " for label in compute_averages(runs))]]
    for name, values in by_name.items():
        best = max(rates.accuracy for rates in values.values())
        rows.append([name, *(_format_accuracy(rates, best, len(values)) for rates in values.values())])
    return _align(rows)


def _format_accuracy(values: MethodAverage, best: float, methods: int) -> str:
    spread = values.accuracy_std
    text = f"{100 * values.accuracy:.2f}" + ("" if spread is None else f" ± {100 * spread:.2f}")
    return text + format_marks(best=values.accuracy == best and methods > 1, noise=bool(values.gain_is_noise))


def _align(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        row[0].ljust(widths[0])
        + "".join(cell.rjust(width + 2) for cell, width in zip(row[1:], widths[1:], strict=True))
        for row in rows
    )
    return "\n".join(lines)
