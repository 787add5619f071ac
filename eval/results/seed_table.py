"""Accuracy over several seeds as plain text for a terminal: a row per data set, and their average."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...engine.errors import escape_controls
from .average import MethodAverage, average_by_domain, compute_averages, is_apart
from .outcome import Run
from .table import format_marks

_NAME = 20
_AVERAGE = "average"


def format_seed_table(runs: Sequence[Run]) -> str:
    """Return mean and unbiased standard deviation of the accuracy, in percent, of every data set and method.

    `*` marks the best method, and `~` methods that are statistically indistinguishable from the first. Data
    that the prompt was learnt from come after the average and are not in it.
    """
    domains = [domain for run in runs for domain in run.domains]
    uncounted_names = {domain.name for domain in domains if is_apart(domain)}
    rows = average_by_domain(runs)
    counted = {name: averages for name, averages in rows.items() if name not in uncounted_names}
    uncounted = {f"({name})": averages for name, averages in rows.items() if name in uncounted_names}
    average = {_AVERAGE: compute_averages(runs)} if len(counted) > 1 else {}
    table = [
        (escape_controls(name), _format_row(averages))
        for name, averages in {**counted, **average, **uncounted}.items()
    ]
    labels = list(table[0][1])
    width = max(_NAME, 2 + max(len(name) for name, _ in table))
    widths = [2 + max(len(label), *(len(cells[label]) for _, cells in table)) for label in labels]
    title = "accuracy, %"
    lines = [title.ljust(width) + "".join(map(str.rjust, labels, widths))]
    lines += [name.ljust(width) + "".join(map(str.rjust, cells.values(), widths)) for name, cells in table]
    if uncounted:
        lines.append("(…) the prompt was learnt from training images of this data set; not in the average")
    return "\n".join(lines)


def _format_row(averages: Mapping[str, MethodAverage]) -> dict[str, str]:
    best = max(values.accuracy for values in averages.values())
    cells = {}
    for label, values in averages.items():
        spread = "" if values.accuracy_std is None else f" ± {100 * values.accuracy_std:.2f}"
        is_best = values.accuracy == best and len(averages) > 1
        marks = format_marks(best=is_best, noise=bool(values.gain_is_noise))
        cells[label] = f"{100 * values.accuracy:.2f}{spread}{marks}"
    return cells
