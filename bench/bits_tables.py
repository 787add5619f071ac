"""Table of accuracy by the number of bits, from results of `fozo adapt` with one precision each."""

from __future__ import annotations

from accuracy_tables import complete_runs, read_accuracy
from fozo.evaluation import MethodAverage, compute_averages
from result_files import format_table

PRECISIONS = {"fp32": "fp32", "int8": "W8A8", "w6a6": "W6A6", "w4a8": "W4A8", "w4a4": "W4A4"}


def tabulate_bits() -> str:
    """Return a row per method and a column per precision: accuracy in %, spread over seeds, and noise."""
    averages = {name: compute_averages(complete_runs(read_accuracy(f"bits-{name}"))) for name in PRECISIONS}
    labels = list(next(iter(averages.values())))
    rows = []
    for label in labels:
        forwards = f"{averages['fp32'][label].forwards_per_batch:.3g}"
        cells = [format_accuracy(averages[name][label]) for name in PRECISIONS]
        rows.append([f"`{label}`", forwards, *cells])
    return format_table(["method", "forwards", *PRECISIONS.values()], rows)


def format_accuracy(average: MethodAverage) -> str:
    """Return the accuracy and its standard deviation over seeds, with `~` for a gain within the noise."""
    spread = "" if average.accuracy_std is None else f" ± {100 * average.accuracy_std:.1f}"
    return f"{100 * average.accuracy:.1f}{spread}{' ~' * bool(average.gain_is_noise)}"
