"""The section that compares several results files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ....engine.bundle.origin import describe_preparation, describe_weights
from ....engine.files import hash_texts
from .chart_data import ScatterChart
from .explanations import MARKS_OF_RUNS, NOT_SAME_PROTOCOL
from .groups import list_processed_domains
from .sources import Source
from .speed import digest_speed
from .tables import NONE, Cell, Row, Table, tabulate_domains, tabulate_summary

# Facts without which two runs do not measure the same thing.
_PROTOCOL = (
    "data",
    "setting",
    "severities",
    "images",
    "batch size",
    "classes",
    "EXIF orientation",
    "hash of the images",
)


@dataclass(frozen=True)
class Comparison:
    """A comparison of several results files.

    Attributes:
        warnings: files that are incomplete or have unofficial data.
        caution: the reason why the files are not comparable, or an empty text.
        methods: accuracy and gain of every method in every file.
        speed: accuracy against time of every method in every file.
        domains: accuracy per domain of every method in every file.
        differences: facts in which the runs differ, or None.
    """

    warnings: tuple[str, ...]
    caution: str
    methods: Table
    speed: ScatterChart
    domains: Table
    differences: Table | None


def compare(sources: Sequence[Source]) -> Comparison:
    """Return the comparison of several results files."""
    return Comparison(
        tuple(_list_short_warnings(sources)),
        "" if have_same_protocol(sources) else NOT_SAME_PROTOCOL,
        compare_methods(sources),
        digest_speed(sources),
        compare_domains(sources),
        list_differences(sources),
    )


def _list_short_warnings(sources: Sequence[Source]) -> list[str]:
    names = {
        "Incomplete": [source.name for source in sources if not source.results.complete],
        "With corruptions that fozo generated, not the official data set": [
            source.name
            for source in sources
            if any(domain.generated for domain in list_processed_domains(source.results))
        ],
    }
    return [f"{problem}: {', '.join(files)}." for problem, files in names.items() if files]


def list_differences(sources: Sequence[Source]) -> Table | None:
    """Return the facts in which the runs differ; None if there are none."""
    fact_sheets = [_describe(source) for source in sources]
    rows = [
        Row(name, tuple(Cell(facts[name]) for facts in fact_sheets))
        for name in fact_sheets[0]
        if len({facts[name] for facts in fact_sheets}) > 1
    ]
    names = tuple(source.name for source in sources)
    return Table("Differences between the runs", "fact", names, tuple(rows)) if rows else None


def have_same_protocol(sources: Sequence[Source]) -> bool:
    """Return true if all runs used the same images under the same protocol."""
    fact_sheets = [_describe(source) for source in sources]
    return all(len({facts[name] for facts in fact_sheets}) == 1 for name in _PROTOCOL)


def compare_methods(sources: Sequence[Source]) -> Table:
    """Return accuracy and gain of every method in every run."""
    labels = dict.fromkeys(label for source in sources for label in source.labels)
    rows: dict[str, list[Cell]] = {label: [] for label in labels}
    for source in sources:
        summary = tabulate_summary(source)
        columns = [
            summary.columns.index(name) for name in ("accuracy, %", "gain ± error") if name in summary.columns
        ]
        cells = {row.name: row.cells for row in summary.rows}
        for label, row in rows.items():
            accuracies = [cells[label][column] for column in columns] if label in cells else []
            row += [*accuracies, *[Cell(NONE)] * (2 - len(accuracies))]
    return Table(
        "Accuracy, mean over the domains",
        "method",
        ("accuracy, %", "gain ± error") * len(sources),
        tuple(Row(label, tuple(row)) for label, row in rows.items()),
        tuple((source.name, 2) for source in sources),
        MARKS_OF_RUNS,
    )


def compare_domains(sources: Sequence[Source]) -> Table:
    """Return accuracy per domain of every method in every run."""
    rows_by_name: list[Mapping[str, Row]] = [
        {row.name: row for row in tabulate_domains(source).rows} for source in sources
    ]
    kinds = {name: row.kind for named_rows in rows_by_name for name, row in named_rows.items()}
    order = ("single", "average", "apart")
    names = sorted(kinds, key=lambda name: order.index(kinds[name]))  # stable: domains stay in their order
    rows = []
    for name in names:
        cells: list[Cell] = []
        for source, named_rows in zip(sources, rows_by_name, strict=True):
            cells += named_rows[name].cells if name in named_rows else [Cell(NONE)] * len(source.labels)
        rows.append(Row(name, tuple(cells), kinds[name]))
    return Table(
        "Top-1 accuracy per domain, %",
        "domain",
        tuple(label for source in sources for label in source.labels),
        tuple(rows),
        tuple((source.name, len(source.labels)) for source in sources),
    )


def _describe(source: Source) -> dict[str, str]:
    results, protocol = source.results, source.results.protocol
    hashes = {
        f"{run.seed}/{domain.name}/{domain.severity}/{domain.ids_sha256}/{'/'.join(domain.unreadable)}"
        for run in results.runs
        for domain in run.domains
    }
    rounds = f" ({protocol.rounds})" if protocol.rounds > 1 else ""
    order = "" if protocol.concentration is None else f" (Dirichlet {protocol.concentration:g})"
    return {
        "model": str(results.bundle.get("model", NONE)),
        "precision": str(results.bundle.get("precision", NONE)),
        "graph": str(results.bundle.get("graph_sha256", NONE))[:12],
        "weights": describe_weights(results.bundle) if "weights" in results.bundle else NONE,
        "preparation of images": describe_preparation(results.bundle)
        if "preprocessing" in results.bundle
        else NONE,
        "data": protocol.dataset,
        "setting": f"{protocol.setting}{rounds}{order}",
        "severities": ", ".join(map(str, protocol.severities)) or NONE,
        "images": protocol.subset,
        "batch size": str(protocol.batch_size),
        "classes": protocol.classes,
        "class order": protocol.class_order or NONE,
        "EXIF orientation": protocol.exif_orientation,
        "reduced above": NONE if protocol.reduced_above is None else f"{protocol.reduced_above:,} pixels",
        "seeds": ", ".join(map(str, protocol.seeds)),
        "hash of the images": hash_texts(*sorted(hashes))[:12],
        "complete": "yes" if results.complete else "NO",
        "provider": str(results.engine.get("provider", NONE)),
        "threads": str(results.engine.get("workers", NONE)),
        "fozo": str(results.versions.get("fozo", NONE)),
        "ONNX Runtime": str(results.versions.get("onnxruntime", NONE)),
        "processor": str(results.machine.get("model", NONE)),
    }
