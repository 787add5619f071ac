"""Averages over domains and seeds, and the uncertainty of differences between methods."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..datasets.corruption_names import CLEAN, IMAGENET_C
from .outcome import DomainResult, MethodResult, Run

CONFIDENCE = 1.96  # standard errors of a difference that count as noise, at 95 %
# The same for the mean of 2, 3, … runs, by Student's t; more than ten count as ten.
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
# Top-1 error of AlexNet in %, averaged over the severities: Hendrycks and Dietterich (ICLR 2019), table 1.
ALEXNET = dict(
    zip(
        IMAGENET_C,
        (88.6, 89.4, 92.3, 82.0, 82.6, 78.6, 79.8, 86.7, 82.7, 81.9, 56.5, 85.3, 64.6, 71.8, 60.7),
        strict=True,
    )
)
RATES = ("accuracy", "top5_accuracy", "nll", "ece")
MACRO_F1 = "macro_f1"  # a rate where classes were counted
TENTH = 10  # fewer runs have no worst tenth


@dataclass(frozen=True)
class MethodAverage:
    """One method's rates, averaged over domains and then over seeds, and its cost over everything.

    Attributes:
        accuracy, top5_accuracy, nll, ece: unweighted means.
        accuracy_std, top5_accuracy_std, nll_std, ece_std: standard deviations over seeds; None for one seed.
        gain: mean of the accuracy's differences to the first method; None for the first method.
        gain_error: standard error of the gain, or None.
        gain_is_noise: 0 is within `CONFIDENCE` standard errors of the gain; None for the first method.
        mce: mean corruption error in %, or None where `compute_mean_corruption_error` is not defined.
        forwards_per_batch, images_per_second, peak_bytes, guarded, pull_backs_per_batch: cost over all
            processed images.
        worst_accuracy: mean accuracy of the worst tenth of the runs; None for fewer than ten.
        macro_f1, macro_f1_std: as the rates above; None where classes were not counted.
    """

    accuracy: float
    top5_accuracy: float
    nll: float
    ece: float
    accuracy_std: float | None
    top5_accuracy_std: float | None
    nll_std: float | None
    ece_std: float | None
    gain: float | None
    gain_error: float | None
    gain_is_noise: bool | None
    mce: float | None
    forwards_per_batch: float
    images_per_second: float
    peak_bytes: int
    guarded: float
    pull_backs_per_batch: float = 0
    worst_accuracy: float | None = None
    macro_f1: float | None = None
    macro_f1_std: float | None = None

    def get_value(self, name: str) -> float | None:
        """Return a value by its name."""
        value: float | None = getattr(self, name)
        return value

    def get_spread(self, name: str) -> float | None:
        """Return the standard deviation of a value over seeds; None for one seed, and for costs."""
        return self.get_value(f"{name}_std") if name in (*RATES, MACRO_F1) else None


def compute_averages(runs: Sequence[Run]) -> dict[str, MethodAverage]:
    """Average the rates of each method over the corruptions, then over seeds, and add up its cost.

    Clean images, data that a prompt was learnt from, and interrupted domains and runs do not count, unless
    there is nothing else. Of several interrupted runs, only those with the same domains count.

    Returns:
        The average of each method by label.
    """
    started = [run for run in runs if select_counted_domains(run)]
    labels = list(started[0].traces) if started else []
    # Means over other domains, as those of an interrupted run, cannot be compared.
    comparable = [run for run in started if run.complete] or _select_equal_domains(started)
    return {label: _average_method(comparable, label, label == labels[0]) for label in labels}


def compare_pair(runs: Sequence[Run], first: str, second: str) -> MethodAverage:
    """Return the average of the second method with its gain over the first, whatever others there are."""
    pair = (first, second)
    restricted = [
        replace(
            run,
            domains=[
                replace(domain, methods={label: domain.methods[label] for label in pair})
                for domain in run.domains
            ],
            traces={label: run.traces[label] for label in pair},
        )
        for run in runs
    ]
    return compute_averages(restricted)[second]


def _select_equal_domains(runs: Sequence[Run]) -> list[Run]:
    """Return the runs with the same domains as the run that has most; means of others are not comparable."""
    compositions = [
        [(domain.name, domain.severity, domain.round) for domain in select_counted_domains(run)]
        for run in runs
    ]
    most = max(compositions, key=len, default=[])
    return [run for run, domains in zip(runs, compositions, strict=True) if domains == most]


def select_counted_domains(run: Run) -> list[DomainResult]:
    """Return the domains that count in the averages of a run."""
    processed = [domain for domain in run.domains if _count_batches(domain.methods.values())]
    return [domain for domain in processed if domain.complete and not is_apart(domain)] or processed


def is_apart(domain: DomainResult) -> bool:
    """Return whether a domain is shown beside the averages: clean images, and what a prompt learnt from."""
    return domain.name == CLEAN or domain.learnt_from


def average_by_domain(runs: Sequence[Run]) -> dict[str, dict[str, MethodAverage]]:
    """Return for each domain the averages of the methods over the seeds, by name of the domain."""
    names = dict.fromkeys(domain.name for run in runs for domain in run.domains)
    return {name: compute_averages([_restrict(run, name) for run in runs]) for name in names}


def _restrict(run: Run, name: str) -> Run:
    return replace(run, domains=[domain for domain in run.domains if domain.name == name])


def average_rate(domains: Iterable[DomainResult], label: str, rate: str) -> float:
    """Return the unweighted mean over domains of one of `RATES` of a method."""
    return float(np.mean([get_rate(domain.methods[label], rate) for domain in domains]))


def average_macro_f1(domains: Sequence[DomainResult], label: str) -> float | None:
    """Return the unweighted mean over domains of a method's macro-F1; None unless all have one."""
    values = [domain.methods[label].tally.macro_f1 for domain in domains]
    return None if None in values else float(np.mean([value for value in values if value is not None]))


def get_rate(result: MethodResult, rate: str) -> float:
    """Return one of `RATES` of a result."""
    value: float = getattr(result.tally, "mean_nll" if rate == "nll" else rate)
    return value


def compute_gain(domain: DomainResult, label: str) -> tuple[float, float]:
    """Return the gain in accuracy of a method over the first one on a domain, and its standard error.

    Both processed the same images, so only images count on which exactly one of them was right, as in
    McNemar's test. The error counts one more such image on either side, as few images prove little.
    """
    images = max(1, domain.methods[label].tally.images)
    gained, lost = domain.count_gained_and_lost(label)
    gain = (gained - lost) / images
    variance = (gained + lost + 2) / images - gain**2
    return gain, math.sqrt(max(0.0, variance) / images)


def is_noise(gain: float, error: float) -> bool:
    """Return whether a gain is statistically indistinguishable from 0."""
    return abs(gain) <= CONFIDENCE * error


def compute_mean_corruption_error(runs: Sequence[Run], label: str) -> float | None:
    """Return the mCE in %: errors over the severities divided by AlexNet's, averaged over corruptions.

    It is defined for the 15 official corruptions at all five severities, each complete and streamed once;
    otherwise return None.
    """
    by_name: dict[str, dict[int, list[float]]] = {}
    for domain in (domain for run in runs for domain in run.domains):
        if domain.round > 1:
            return None
        official = domain.benchmark == "imagenet-c" and domain.name in ALEXNET
        if official and domain.complete and domain.severity:
            error = 1 - domain.methods[label].tally.accuracy
            by_name.setdefault(domain.name, {}).setdefault(domain.severity, []).append(error)
    if len(by_name) < len(ALEXNET) or any(len(severities) < 5 for severities in by_name.values()):
        return None
    errors = {
        name: np.mean([np.mean(severity_errors) for severity_errors in by_name[name].values()])
        for name in ALEXNET
    }
    return float(np.mean([100 * errors[name] / (ALEXNET[name] / 100) for name in ALEXNET]))


def _average_method(runs: Sequence[Run], label: str, first: bool) -> MethodAverage:
    rates = {rate: [average_rate(select_counted_domains(run), label, rate) for run in runs] for rate in RATES}
    macro_f1 = [average_macro_f1(select_counted_domains(run), label) for run in runs]
    counted = [value for value in macro_f1 if value is not None]
    gain, error = _average_gain(runs, label)
    results = [domain.methods[label] for run in runs for domain in run.domains]
    seconds = sum(result.seconds for result in results)
    return MethodAverage(
        accuracy=float(np.mean(rates["accuracy"])),
        top5_accuracy=float(np.mean(rates["top5_accuracy"])),
        nll=float(np.mean(rates["nll"])),
        ece=float(np.mean(rates["ece"])),
        accuracy_std=compute_spread(rates["accuracy"]),
        top5_accuracy_std=compute_spread(rates["top5_accuracy"]),
        nll_std=compute_spread(rates["nll"]),
        ece_std=compute_spread(rates["ece"]),
        gain=None if first else gain,
        gain_error=None if first else error,
        gain_is_noise=None if first else is_noise(gain, error),
        mce=compute_mean_corruption_error(runs, label),
        forwards_per_batch=sum(result.forwards for result in results) / _count_batches(results),
        images_per_second=sum(result.tally.images for result in results) / seconds if seconds else 0.0,
        peak_bytes=max(result.peak_bytes for result in results),
        guarded=sum(result.guarded for result in results),
        pull_backs_per_batch=sum(result.pull_backs for result in results) / _count_batches(results),
        worst_accuracy=average_worst_tenth(rates["accuracy"]),
        macro_f1=float(np.mean(counted)) if counted else None,
        macro_f1_std=compute_spread(counted),
    )


def _average_gain(runs: Sequence[Run], label: str) -> tuple[float, float]:
    """Return the mean gain over domains and runs, and the larger of two estimates of its error.

    The first estimate comes from the images on which the methods differ. It treats images of different
    corruptions as independent, and those of other severities, rounds and seeds with the same images as
    identical. The second is the spread over seeds, widened by Student's t.
    """
    gains, errors = [], []
    for run in runs:
        by_name: dict[str, list[tuple[float, float]]] = {}
        for domain in select_counted_domains(run):
            by_name.setdefault(domain.name, []).append(compute_gain(domain, label))
        pairs = [pair for differences in by_name.values() for pair in differences]
        gains.append(float(np.mean([gain for gain, _ in pairs])))
        together = [sum(error for _, error in differences) for differences in by_name.values()]
        errors.append(math.sqrt(sum(error**2 for error in together)) / len(pairs))
    choices = {tuple(domain.ids_sha256 for domain in select_counted_domains(run)) for run in runs}
    by_images = float(np.mean(errors)) / math.sqrt(len(choices))
    by_seeds = (compute_spread(gains) or 0.0) / math.sqrt(len(gains))
    by_seeds *= STUDENT[min(len(gains) - 2, len(STUDENT) - 1)] / CONFIDENCE if by_seeds else 1
    return float(np.mean(gains)), max(by_images, by_seeds)


def average_worst_tenth(values: Sequence[float]) -> float | None:
    """Return the mean of the smallest tenth of some values, rounded up; None for fewer than ten.

    >>> average_worst_tenth([float(value) for value in range(20)])
    0.5
    """
    if len(values) < TENTH:
        return None
    return float(np.mean(sorted(values)[: math.ceil(len(values) / TENTH)]))


def compute_spread(values: Sequence[float]) -> float | None:
    """Return the unbiased standard deviation over seeds; None for a single one."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def _count_batches(results: Iterable[MethodResult]) -> float:
    return sum(result.batches for result in results)
