"""Tables of speed and memory, from results of `fozo bench`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from result_files import NONE, format_table, read_document


def tabulate_methods(name: str) -> str:
    """Return a row per method: its time on each graph of the bundle, by itself and by that of `no_adapt`."""
    cells = read_document(name)["cells"]
    precisions = list(dict.fromkeys(cell["precision"] for cell in cells))
    columns = ("ms per step", "images/s", "time ÷ no_adapt", "peak MB")
    head = ["method", *(f"{precision}: {column}" for precision in precisions for column in columns)]
    rows = []
    for method in dict.fromkeys(cell["method"] for cell in cells):
        by_precision = {cell["precision"]: cell for cell in cells if cell["method"] == method}
        values = (value for precision in precisions for value in format_speed(by_precision[precision]))
        rows.append([f"`{method.partition('=')[0]}`", *values])
    return format_table(head, rows)


def tabulate_backends(name: str) -> str:
    """Return a row per backend and method, PyTorch's among them."""
    columns = ("batch", "ms per step", "images/s", "time ÷ no_adapt", "peak MB", "time ÷ first backend")
    rows = [
        [
            cell["backend"],
            f"`{cell['method']}`",
            f"{cell['batch_size']}",
            *format_speed(cell),
            format_number(cell["time_by_first"], ".2f"),
        ]
        for cell in read_document(name)["cells"]
    ]
    return format_table(["backend", "method", *columns], rows)


def format_speed(cell: Mapping[str, Any]) -> list[str]:
    """Return milliseconds per step, images per second, time by that of `no_adapt`, and peak memory."""
    seconds = cell["seconds"]
    return [
        format_number(None if seconds is None else 1e3 * seconds, ",.0f"),
        format_number(cell["images_per_second"], ".1f"),
        format_number(cell["time_by_no_adapt"], ".2f"),
        format_number(cell["peak_mb"], ",.0f"),
    ]


def format_number(value: float | None, form: str) -> str:
    """Return a number as text, or a dash for none."""
    return NONE if value is None else format(value, form)
