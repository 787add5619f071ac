"""The results of a sweep as a table: a row per cell as CSV, and averages over corruptions and seeds."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..average import averages, rate_of
from ..outcome import Run, Trace
from ..table import COLUMNS
from .cell import Cell
from .results import CellResults

AVERAGE = "average"
# A sweep has no first method that others gain over; accuracy has a table of its own.
_COLUMNS = tuple(each for each in COLUMNS if each[1] not in ("accuracy", "gain", "guarded"))


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
        cells, finished: how many there are, and how many of them the averages are of.
        domains: by name, `accuracy` in 0..1, averaged over severities and then seeds, and `accuracy_std` over
            seeds, None for one seed.
        average: as in `fozo.eval.average.averages`.
    """

    bundle: str
    model: str
    precision: str
    method: str
    cells: int
    finished: int
    domains: Mapping[str, Mapping[str, float | None]]
    average: Mapping[str, Any]


def summaries(cells: Sequence[Cell], finished: Mapping[Cell, CellResults]) -> list[Summary]:
    """One for every method on every graph of which any cell is finished, in the order of the cells."""
    groups: dict[tuple[str, str, str, str], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.bundle, cell.model, cell.precision, cell.label), []).append(cell)
    made = []
    for key, members in groups.items():
        done = [finished[cell] for cell in members if cell in finished]
        if done:
            by_name: dict[str, list[CellResults]] = {}
            for each in done:
                by_name.setdefault(each.domain.name, []).append(each)
            domains = {name: _accuracy(_average(key[-1], part)) for name, part in by_name.items()}
            made.append(Summary(*key, len(members), len(done), domains, _average(key[-1], done)))
    return made


def _accuracy(average: Mapping[str, Any]) -> dict[str, float | None]:
    return {name: average[name] for name in ("accuracy", "accuracy_std")}


def _average(label: str, found: Iterable[CellResults]) -> dict[str, Any]:
    """As if the cells of each seed had been one run."""
    runs: dict[int, Run] = {}
    for each in found:
        seed = each.run.seed
        runs.setdefault(seed, Run(seed, [], {label: Trace()}, complete=True)).domains.append(each.domain)
    average = averages([runs[seed] for seed in sorted(runs)])[label]
    return {name: value for name, value in average.items() if not name.startswith("gain")}


def text(made: Sequence[Summary]) -> str:
    """Tables for a terminal: by graph, accuracy by corruption and method, then what else was measured."""
    graphs: dict[tuple[str, str, str], list[Summary]] = {}
    for each in made:
        graphs.setdefault((each.bundle, each.model, each.precision), []).append(each)
    models = {(bundle, model) for bundle, model, _ in graphs}
    parts = []
    for (bundle, model, precision), methods in graphs.items():
        same = sum(model == other for _, other in models) > 1
        title = f"{model}{f' {bundle[:8]}' if same else ''} {precision}"
        parts.append(f"{title}\n{_accuracies(methods)}\n\n{_others(methods)}")
    return "\n\n".join(parts)


def _accuracies(methods: Sequence[Summary]) -> str:
    names = list(dict.fromkeys(name for each in methods for name in each.domains))
    rows = [["accuracy, %", *(each.method for each in methods)]]
    for name in names:
        rows.append([name, *(_percent(each.domains.get(name)) for each in methods)])
    rows.append([AVERAGE, *(_percent(each.average) for each in methods)])
    return _aligned(rows)


def _others(methods: Sequence[Summary]) -> str:
    columns = [each for each in _COLUMNS if any(summary.average[each[1]] for summary in methods)]
    rows = [["method", *(column[0] for column in columns), "cells"]]
    for each in methods:
        values = [each.average[key] for _, key, *_ in columns]
        cells = [
            "–" if value is None else format(value * factor, kind)
            for value, (_, _, factor, kind) in zip(values, columns, strict=True)
        ]
        missing = "" if each.finished == each.cells else f" of {each.cells}"
        rows.append([each.method, *cells, f"{each.finished}{missing}"])
    return _aligned(rows)


def _percent(values: Mapping[str, Any] | None) -> str:
    if values is None:
        return "–"
    spread = values["accuracy_std"]
    return f"{100 * values['accuracy']:.2f}" + ("" if spread is None else f" ± {100 * spread:.2f}")


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        row[0].ljust(widths[0])
        + "".join(cell.rjust(width + 2) for cell, width in zip(row[1:], widths[1:], strict=True))
        for row in rows
    )
    return "\n".join(lines)
