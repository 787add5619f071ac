"""Table of accuracy by the number of bits, from results of `fozo adapt` with one precision each."""

from __future__ import annotations

from accuracy_tables import complete_runs, format_gain, read_accuracy
from fozo.evaluation import MethodAverage, compute_averages
from result_files import format_table

PRECISIONS = {"int8": "W8A8", "w6a6": "W6A6", "w4a8": "W4A8", "w4a4": "W4A4"}


def tabulate_bits() -> str:
    """Return a row per method and a column per precision: accuracy in %, and gains."""
    averages = {name: compute_averages(complete_runs(read_accuracy(f"bits-{name}"))) for name in PRECISIONS}
    labels = list(next(iter(averages.values())))
    rows = []
    for label in labels:
        forwards = f"{averages['int8'][label].forwards_per_batch:.3g}"
        cells = [format_accuracy(averages[name][label]) for name in PRECISIONS]
        rows.append([f"`{label}`", forwards, *cells])
    return format_table(["method", "forwards", *PRECISIONS.values()], rows)


def format_accuracy(average: MethodAverage) -> str:
    """Return the accuracy, and in brackets the gain over the first method with its error."""
    gain = format_gain(average)
    return f"{100 * average.accuracy:.1f}" + (f" ({gain})" if gain else "")
