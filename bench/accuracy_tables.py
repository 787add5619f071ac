"""Tables of accuracy, from results of `fozo adapt`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from fozo.evaluation import MethodAverage, Results, Run, compute_averages, read_results
from result_files import RESULTS, format_table

CLEAN = "clean"
RATES = ("accuracy, %", "gain", "smallest gain", "clean", "ECE, %")  # headings of `format_rates`


def read_accuracy(name: str) -> Results:
    """Return the results of an accuracy run in bench/results/."""
    return read_results(RESULTS / f"{name}.json")


def tabulate_averages(name: str, methods: Sequence[str] = ()) -> str:
    """Return a row per method: accuracy, gains over the first method, and calibration.

    Args:
        name: of the results.
        methods: labels of the rows; default: all.
    """
    return tabulate_runs(complete_runs(read_accuracy(name)), methods)


def tabulate_runs(runs: Sequence[Run], methods: Sequence[str] = ()) -> str:
    """Return a row per method: accuracy, gains over the first method, and calibration.

    Columns without a value are left out, as that of clean images is where none were seen.

    Args:
        runs: one for each seed.
        methods: labels of the rows; default: all.
    """
    rows = []
    for label, average in compute_averages(runs).items():
        if not methods or label in methods:
            forwards = f"{average.forwards_per_batch:.3g}"
            rows.append([f"`{label}`", forwards, *format_rates(runs, label, average)])
    head = ("method", "forwards", *RATES)
    used = [column for column in range(len(head)) if any(row[column] for row in rows)]
    return format_table([head[column] for column in used], [[row[column] for column in used] for row in rows])


def format_rates(runs: Sequence[Run], label: str, average: MethodAverage) -> list[str]:
    """Return a method's accuracy, gains over the first method, and calibration."""
    return [
        format_accuracy(average),
        format_gain(average),
        format_smallest_gain(runs, label) if average.gain is not None else "",
        format_clean_gain(runs, label),
        f"{100 * average.ece:.1f}",
    ]


def tabulate_domains(name: str, methods: Sequence[str] = ()) -> str:
    """Return a row per domain and a column per method: accuracy in %, averaged over seeds."""
    runs = complete_runs(read_accuracy(name))
    labels = [label for label in runs[0].traces if not methods or label in methods]
    rows = []
    for domain in runs[0].domains:
        values = [f"{100 * average_accuracy(runs, domain.name, label):.1f}" for label in labels]
        best = max(values, key=float)
        rows.append([domain.name, *(f"**{value}**" if value == best else value for value in values)])
    return format_table(["domain", *(f"`{label}`" for label in labels)], rows)


def tabulate_precisions(fp32_name: str, int8_name: str) -> str:
    """Return accuracy and gains of the fp32 graph, and of the int8 graph on the same images."""
    fp32_runs = complete_runs(read_accuracy(fp32_name))
    int8_runs = select_runs(complete_runs(read_accuracy(int8_name)), fp32_runs)
    fp32, int8 = compute_averages(fp32_runs), compute_averages(int8_runs)
    head = ["method", "fp32: accuracy, %", "int8", "fp32: gain", "int8", "fp32: clean, %", "int8"]
    rows = []
    for label in fp32:
        accuracies = [f"{100 * average.accuracy:.1f}" for average in (fp32[label], int8[label])]
        gains = [format_gain(average) for average in (fp32[label], int8[label])]
        clean = [f"{100 * average_accuracy(runs, CLEAN, label):.1f}" for runs in (fp32_runs, int8_runs)]
        rows.append([f"`{label}`", *accuracies, *gains, *clean])
    return format_table(head, rows)


def select_runs(runs: Sequence[Run], pattern: Sequence[Run]) -> list[Run]:
    """Return the runs of the seeds of `pattern`, with the domains on which both saw the same images."""
    images = {(run.seed, domain.name, domain.ids_sha256) for run in pattern for domain in run.domains}
    return [
        replace(run, domains=[d for d in run.domains if (run.seed, d.name, d.ids_sha256) in images])
        for run in runs
        if run.seed in {run.seed for run in pattern}
    ]


def complete_runs(results: Results) -> list[Run]:
    """Return the runs of the seeds whose every image was seen."""
    return [run for run in results.runs if run.complete]


def average_accuracy(runs: Sequence[Run], domain_name: str, label: str) -> float:
    """Return a method's accuracy on a domain, in 0..1, averaged over seeds."""
    return float(
        np.mean(
            [
                domain.methods[label].tally.accuracy
                for run in runs
                for domain in run.domains
                if domain.name == domain_name
            ]
        )
    )


def average_gain(runs: Sequence[Run], domain_name: str, label: str) -> float:
    """Return by how much a method is above the first one on a domain, in points."""
    first = next(iter(runs[0].traces))
    difference = average_accuracy(runs, domain_name, label) - average_accuracy(runs, domain_name, first)
    return 100 * difference


def format_accuracy(average: MethodAverage) -> str:
    """Return the accuracy in %, with its standard deviation where there are several seeds."""
    deviation = "" if average.accuracy_std is None else f" ± {100 * average.accuracy_std:.1f}"
    return f"{100 * average.accuracy:.1f}{deviation}"


def format_gain(average: MethodAverage) -> str:
    """Return the gain and its standard error in points, marked with `~` where it is within the noise."""
    if average.gain is None or average.gain_error is None:
        return ""
    return f"{100 * average.gain:+.1f} ± {100 * average.gain_error:.1f}{' ~' * bool(average.gain_is_noise)}"


def format_smallest_gain(runs: Sequence[Run], label: str) -> str:
    """Return the gain on the corruption where it is smallest, and that corruption."""
    gains = {
        domain.name: average_gain(runs, domain.name, label)
        for domain in runs[0].domains
        if domain.name != CLEAN
    }
    name = min(gains, key=gains.__getitem__)
    return f"{gains[name]:+.1f} ({name})"


def format_clean_gain(runs: Sequence[Run], label: str) -> str:
    """Return the gain on clean images, or nothing for the first method."""
    first = next(iter(runs[0].traces))
    has_clean = any(domain.name == CLEAN for domain in runs[0].domains)
    return f"{average_gain(runs, CLEAN, label):+.1f}" if has_clean and label != first else ""
