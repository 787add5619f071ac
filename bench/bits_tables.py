"""Tables of accuracy by the number of bits, from results of `fozo adapt` with one precision each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from accuracy_tables import complete_runs, format_accuracy, format_gain, read_accuracy, tabulate_runs
from fozo.evaluation import MethodAverage, Run, compute_averages
from result_files import NONE, RESULTS, format_table

PRECISIONS = {"fp32": "fp32", "int8": "W8A8", "w6a6": "W6A6", "w4a8": "W4A8", "w4a4": "W4A4"}


def tabulate_bits(name: str = "bits") -> str:
    """Return a row per method and a column per precision that was run: accuracy in %, and gains.

    Args:
        name: with which the names of the results begin; that of the precision follows.
    """
    runs = {precision: read_methods(f"{name}-{precision}") for precision in PRECISIONS}
    averages = {precision: compute_averages(seeds) for precision, seeds in runs.items() if seeds}
    rows = []
    for label, average in averages["w6a6"].items():
        cells = [format_cell(methods.get(label)) for methods in averages.values()]
        rows.append([f"`{label}`", f"{average.forwards_per_batch:.3g}", *cells])
    return format_table(["method", "forwards", *(PRECISIONS[precision] for precision in averages)], rows)


def read_methods(name: str) -> list[Run]:
    """Return the runs of `read_seeds`, with methods of `NAME-others.json`, which were run later."""
    runs, others = read_seeds(name), read_seeds(f"{name}-others")
    return merge_methods(runs, others) if others else runs


def tabulate_foa() -> str:
    """Return a row per method of the long streams with six bits: FOA, and ZOA with two learning rates."""
    runs = merge_methods(read_seeds("bits-long-foa"), read_seeds("bits-long-zoa"))
    return tabulate_runs(runs, ("no_adapt", "foa", "zoa", "zoa2e4", "quar", "pizo"))


def merge_methods(runs: Sequence[Run], others: Sequence[Run]) -> list[Run]:
    """Return runs with the methods of others on the same images added.

    Raises:
        ValueError: seeds, domains or images differ.
    """
    merged = []
    for run, other in zip(runs, others, strict=True):
        identities = [
            [(own.seed, domain.name, domain.ids_sha256) for domain in own.domains] for own in (run, other)
        ]
        if identities[0] != identities[1]:
            raise ValueError("expected the same seeds, domains and images in both files")
        pairs = zip(run.domains, other.domains, strict=True)
        domains = [replace(domain, methods={**domain.methods, **more.methods}) for domain, more in pairs]
        merged.append(replace(run, domains=domains, traces={**run.traces, **other.traces}))
    return merged


def read_seeds(name: str) -> list[Run]:
    """Return the runs of the files `NAME.json` and `NAME-more.json`, one for each seed.

    Raises:
        ValueError: two of them have the same seed.
    """
    paths = sorted(RESULTS.glob(f"{name}.json")) + sorted(RESULTS.glob(f"{name}-more.json"))
    runs = [run for path in paths for run in complete_runs(read_accuracy(path.stem))]
    seeds = [run.seed for run in runs]
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"{name}: expected every seed once, found {seeds}")
    return runs


def format_cell(average: MethodAverage | None) -> str:
    """Return the accuracy, and in brackets the gain over the first method; – if there is none."""
    if average is None:
        return NONE
    gain = format_gain(average)
    return format_accuracy(average) + (f" ({gain})" if gain else "")
