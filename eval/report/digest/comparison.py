"""Tables that compare several results files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ....engine.files import hash_texts
from . import tables
from .sources import Source
from .tables import NONE, Cell, Line, Table

# Facts without which two runs do not measure the same thing.
_PROTOCOL = ("data", "setting", "severities", "images", "batch size", "classes", "hash of the images")


def differences(sources: Sequence[Source]) -> Table | None:
    """Return the facts in which the runs differ; None if there are none."""
    fact_sheets = [_facts(source) for source in sources]
    rows = [
        Line(name, tuple(Cell(facts[name]) for facts in fact_sheets))
        for name in fact_sheets[0]
        if len({facts[name] for facts in fact_sheets}) > 1
    ]
    names = tuple(source.name for source in sources)
    return Table("Differences between the runs", "fact", names, tuple(rows)) if rows else None


def have_same_protocol(sources: Sequence[Source]) -> bool:
    """Return true if all runs used the same images under the same protocol."""
    fact_sheets = [_facts(source) for source in sources]
    return all(len({facts[name] for facts in fact_sheets}) == 1 for name in _PROTOCOL)


def overall(sources: Sequence[Source]) -> Table:
    """Return accuracy and gain of every method in every run."""
    labels = dict.fromkeys(label for source in sources for label in source.labels)
    rows: dict[str, list[Cell]] = {label: [] for label in labels}
    for source in sources:
        summary = tables.summary(source)
        columns = [
            summary.columns.index(name) for name in ("accuracy, %", "gain ± error") if name in summary.columns
        ]
        cells = {line.name: line.cells for line in summary.lines}
        for label, row in rows.items():
            row += [cells[label][at] for at in columns] if label in cells else []
            row += [Cell(NONE)] * (2 - (len(columns) if label in cells else 0))
    return Table(
        "Accuracy, mean over the domains",
        "method",
        ("accuracy, %", "gain ± error") * len(sources),
        tuple(Line(label, tuple(row)) for label, row in rows.items()),
        tuple((source.name, 2) for source in sources),
    )


def domains(sources: Sequence[Source]) -> Table:
    """Return accuracy per domain of every method in every run."""
    rows_by_name: list[Mapping[str, Line]] = [
        {line.name: line for line in tables.by_domain(source).lines} for source in sources
    ]
    kinds = {name: line.kind for lines in rows_by_name for name, line in lines.items()}
    order = ("part", "average", "clean")
    names = sorted(kinds, key=lambda name: order.index(kinds[name]))  # stable: domains stay in their order
    rows = []
    for name in names:
        cells: list[Cell] = []
        for source, lines in zip(sources, rows_by_name, strict=True):
            cells += lines[name].cells if name in lines else [Cell(NONE)] * len(source.labels)
        rows.append(Line(name, tuple(cells), kinds[name]))
    return Table(
        "Top-1 accuracy per domain, %",
        "domain",
        tuple(label for source in sources for label in source.labels),
        tuple(rows),
        tuple((source.name, len(source.labels)) for source in sources),
    )


def _facts(source: Source) -> dict[str, str]:
    results, protocol = source.results, source.results.protocol
    hashes = {
        f"{run.seed}/{domain.name}/{domain.severity}/{domain.ids_sha256}"
        for run in results.runs
        for domain in run.domains
    }
    rounds = f" ({protocol.rounds})" if protocol.rounds > 1 else ""
    order = "" if protocol.concentration is None else f" (Dirichlet {protocol.concentration:g})"
    return {
        "model": str(results.bundle.get("model", NONE)),
        "precision": str(results.bundle.get("precision", NONE)),
        "graph": str(results.bundle.get("graph_sha256", NONE))[:12],
        "data": protocol.dataset,
        "setting": f"{protocol.setting}{rounds}{order}",
        "severities": ", ".join(map(str, protocol.severities)) or NONE,
        "images": protocol.subset,
        "batch size": str(protocol.batch_size),
        "classes": protocol.classes,
        "seeds": ", ".join(map(str, protocol.seeds)),
        "hash of the images": hash_texts(*sorted(hashes))[:12],
        "complete": "yes" if results.complete else "NO",
        "provider": str(results.engine.get("provider", NONE)),
        "threads": str(results.engine.get("workers", NONE)),
        "fozo": str(results.versions.get("fozo", NONE)),
        "ONNX Runtime": str(results.versions.get("onnxruntime", NONE)),
        "processor": str(results.machine.get("model", NONE)),
    }
