"""Tables of accuracy by the number of bits, from results of `fozo adapt` with one precision each."""

from __future__ import annotations

from accuracy_tables import complete_runs, format_gain, format_rates, read_accuracy
from fozo.evaluation import MethodAverage, Run, compute_averages
from result_files import RESULTS, format_table

PRECISIONS = {"fp32": "fp32", "int8": "W8A8", "w6a6": "W6A6", "w4a8": "W4A8", "w4a4": "W4A4"}


def tabulate_bits() -> str:
    """Return a row per method and a column per precision: accuracy in %, and gains."""
    averages = {name: compute_averages(read_seeds(f"bits-{name}")) for name in PRECISIONS}
    rows = []
    for label in averages["int8"]:
        forwards = f"{averages['int8'][label].forwards_per_batch:.3g}"
        cells = [format_accuracy(averages[name].get(label)) for name in PRECISIONS]
        rows.append([f"`{label}`", forwards, *cells])
    return format_table(["method", "forwards", *PRECISIONS.values()], rows)


def tabulate_foa() -> str:
    """Return a row per method of the run with FOA: accuracy, gains, and calibration."""
    runs = read_seeds("bits-foa")
    rows = []
    for label, average in compute_averages(runs).items():
        gain, smallest, _, ece = format_rates(runs, label, average)[1:]
        accuracy = format_mean(average)
        rows.append([f"`{label}`", f"{average.forwards_per_batch:.3g}", accuracy, gain, smallest, ece])
    head = ["method", "forwards", "accuracy, %", "gain", "smallest gain", "ECE, %"]
    return format_table(head, rows)


def read_seeds(name: str) -> list[Run]:
    """Return the runs of all files `NAME.json` and `NAME-….json`, one for each seed.

    Raises:
        ValueError: two of them have the same seed.
    """
    paths = sorted(RESULTS.glob(f"{name}.json")) + sorted(RESULTS.glob(f"{name}-*.json"))
    runs = [run for path in paths for run in complete_runs(read_accuracy(path.stem))]
    seeds = [run.seed for run in runs]
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"{name}: expected every seed once, found {seeds}")
    return runs


def format_accuracy(average: MethodAverage | None) -> str:
    """Return the accuracy, and in brackets the gain over the first method; – if there is none."""
    if average is None:
        return "–"
    gain = format_gain(average)
    return format_mean(average) + (f" ({gain})" if gain else "")


def format_mean(average: MethodAverage) -> str:
    """Return the accuracy in %, with its standard deviation over seeds."""
    deviation = "" if average.accuracy_std is None else f" ± {100 * average.accuracy_std:.1f}"
    return f"{100 * average.accuracy:.1f}{deviation}"
