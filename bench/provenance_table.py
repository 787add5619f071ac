"""Table of the provenance of all results."""

from __future__ import annotations

from pathlib import Path

from result_files import NONE, RESULTS, format_table, read_document


def tabulate_results() -> str:
    """Return a row per file of results, with the load average before speed was measured."""
    head = ("file", "date", "fozo", "ONNX Runtime", "processor", "seeds × images per domain", "load before")
    return format_table(head, [describe_file(path) for path in sorted(RESULTS.glob("*.json"))])


def describe_file(path: Path) -> list[str]:
    """Return the row of a file in the table of results."""
    document = read_document(path.stem)
    versions, machine = document["versions"], document["machine"]
    cpu = machine.get("cpu", machine)
    features = cpu.get("features", cpu.get("int8_features"))
    size, load = NONE, machine.get("load_before")
    if "runs" in document:
        images = document["runs"][0]["domains"][0]["images"]
        size = f"{sum(run['complete'] for run in document['runs'])} × {images}"
    return [
        f"`{path.name}`",
        document["created"][:10],
        versions["fozo"],
        versions.get("onnxruntime", NONE),
        f"{', '.join([cpu['model'], *features])}; {machine['cpus']} cores",
        size,
        NONE if load is None else f"{load:.1f}",
    ]
