"""The results of a benchmark as a table for people."""

from __future__ import annotations

from itertools import groupby

from ...engine.bundle.head_description import describe_head_facts
from ...engine.runtime.cpu import count_cpus, read_cpu_features
from .backends import describe_threads
from .bench_document import describe_bundle, package_versions
from .benchmark import BASELINE, Benchmark
from .samples import Measurement

# Columns of the table: heading, width and format of the values of `_format_row`.
_COLUMNS = (
    ("img/s", 10, ".1f"),
    ("ms/step", 11, ".2f"),
    ("micro", 7, ".0f"),
    (f"/ {BASELINE}", 12, ".2f"),
    ("/ first", 9, ".2f"),
    ("peak MB", 9, ".0f"),
    ("load s", 8, ".2f"),
    ("answer s", 10, ".2f"),
)


def format_table(benchmark: Benchmark) -> str:
    """Return a block of rows per batch size and number of threads."""
    headings = "".join(name.rjust(width) for name, width, _ in _COLUMNS)
    lines = _format_heading(benchmark)
    for (batch_size, threads), group in groupby(benchmark.measurements, _group_key):
        title = f"batch {batch_size}, {describe_threads(threads)}"
        lines += ["", title.ljust(sum(_measure_widths(benchmark))) + headings]
        lines += [_format_row(benchmark, measurement) for measurement in group]
    return "\n".join(lines)


def _measure_widths(benchmark: Benchmark) -> tuple[int, int]:
    """Return the widths of the columns for backends and methods."""
    backends = (len(m.cell.backend.label) for m in benchmark.measurements)
    methods = (len(m.cell.label) for m in benchmark.measurements)
    return 2 + max(16, *backends), 2 + max(8, *methods)


def _format_heading(benchmark: Benchmark) -> list[str]:
    cpu, (before, after), bundle = read_cpu_features(), benchmark.load, describe_bundle(benchmark)
    classes = [f"classes: {describe_head_facts(bundle['head'])}"] if "head" in bundle else []
    cpus, first = count_cpus(), benchmark.backends[0].label
    busy = "; the machine was busy before, do not trust these times" if (before or 0) > cpus / 2 else ""
    return [
        f"{benchmark.bundle.manifest.model}: "
        + ", ".join(f"{name} {entry['mb']:.1f} MB" for name, entry in bundle["graphs"].items()),
        *classes,
        f"{cpu.model}, {cpu.architecture}, {cpus} usable processors; "
        f"for int8: {' '.join(cpu.features) or 'nothing known'}",
        ", ".join(f"{name} {number}" for name, number in package_versions().items()),
        f"load average {_format_number(before, '.2f')} before, {_format_number(after, '.2f')} after{busy}",
        f"medians of {benchmark.samples_per_cell} samples per cell, taken in rounds over all cells; "
        f"a sample: a new process, {benchmark.min_seconds:g} s of steps",
        f"/ {BASELINE}, / first: time by that of {BASELINE}, and by that of {first}, within a round",
    ]


def _format_row(benchmark: Benchmark, measurement: Measurement) -> str:
    m, (wide, narrow) = measurement, _measure_widths(benchmark)
    label = m.cell.backend.label.ljust(wide) + m.cell.label.ljust(narrow)
    if m.failure:
        return f"{label}  failed: {m.failure}"
    seconds = m.median("seconds")
    values = (
        m.images_per_second,
        None if seconds is None else 1e3 * seconds,
        m.median("micro_batch"),
        *benchmark.ratios(m),
        m.median("peak_mb"),
        m.median("load_seconds"),
        m.median("first_answer_seconds"),
    )
    columns = zip(values, _COLUMNS, strict=True)
    return label + "".join(_format_number(value, kind).rjust(width) for value, (_, width, kind) in columns)


def _group_key(measurement: Measurement) -> tuple[int, int]:
    return measurement.cell.batch_size, measurement.cell.threads


def _format_number(value: float | None, kind: str) -> str:
    return "–" if value is None else format(value, kind)
