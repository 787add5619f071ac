"""Averages over domains and seeds, and how far a difference can be trusted."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ..datasets.corruption_names import CLEAN, IMAGENET_C
from .outcome import DomainResult, MethodResult, Run

CONFIDENCE = 1.96  # standard errors of a difference that are within the noise, at 95 %
# The same for the mean over 2, 3, … runs, by Student's t; for more than ten as for ten.
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


@dataclass(frozen=True)
class MethodAverage:
    """One method's rates, averaged over domains and then over seeds, and its cost over everything.

    Attributes:
        accuracy, top5_accuracy, nll, ece: unweighted means.
        accuracy_std, top5_accuracy_std, nll_std, ece_std: their standard deviations over seeds; None for one.
        gain: mean of the accuracy's differences to the first method; None for the first method.
        gain_error: standard error of the gain, or None.
        gain_is_noise: 0 is within `CONFIDENCE` standard errors of the gain; None for the first method.
        mce: mean corruption error in %, or None where `mean_corruption_error` is not defined.
        forwards_per_batch, images_per_second, peak_bytes, guarded: cost over all that was processed.
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

    def value(self, name: str) -> float | None:
        """Return a value by its name."""
        value: float | None = getattr(self, name)
        return value

    def spread(self, name: str) -> float | None:
        """Return the standard deviation of a value over seeds; None for one seed, and for costs."""
        return self.value(f"{name}_std") if name in RATES else None


def averages(runs: Sequence[Run]) -> dict[str, MethodAverage]:
    """Average the rates of each method over the corruptions, then over seeds, and add up its cost.

    Clean images, and a domain or run that was interrupted, do not enter, unless there is nothing else. Of
    several interrupted runs only those do that have the same domains.

    Returns:
        The average of each method by label.
    """
    started = [run for run in runs if counted(run)]
    labels = list(started[0].traces) if started else []
    # A run that was interrupted has other domains than the others.
    comparable = [run for run in started if run.complete] or _select_equal_domains(started)
    return {label: _average_method(comparable, label, label == labels[0]) for label in labels}


def _select_equal_domains(runs: Sequence[Run]) -> list[Run]:
    """The runs with the same domains as the one that has most: others have other means for that alone."""
    compositions = [[(domain.name, domain.severity, domain.round) for domain in counted(run)] for run in runs]
    most = max(compositions, key=len, default=[])
    return [run for run, domains in zip(runs, compositions, strict=True) if domains == most]


def counted(run: Run) -> list[DomainResult]:
    """The domains that enter a run's averages."""
    processed = [domain for domain in run.domains if _batches(domain.methods.values())]
    return [domain for domain in processed if domain.complete and domain.name != CLEAN] or processed


def mean(domains: Iterable[DomainResult], label: str, rate: str) -> float:
    """The unweighted mean of one of `RATES` of a method."""
    return float(np.mean([rate_of(domain.methods[label], rate) for domain in domains]))


def rate_of(result: MethodResult, rate: str) -> float:
    """One of `RATES`."""
    value: float = getattr(result.tally, "mean_nll" if rate == "nll" else rate)
    return value


def difference(domain: DomainResult, label: str) -> tuple[float, float]:
    """By how much a method is more accurate than the first one on a domain, and the standard error of that.

    The images are the same, so only those count where one of the two was right and the other wrong (as in
    McNemar's test). For the error, one more on either side: of few such images nothing is certain.
    """
    images = max(1, domain.methods[label].tally.images)
    gained, lost = domain.gained_and_lost(label)
    gain = (gained - lost) / images
    variance = (gained + lost + 2) / images - gain**2
    return gain, math.sqrt(max(0.0, variance) / images)


def is_noise(gain: float, error: float) -> bool:
    """Return whether a difference cannot be told from none at all."""
    return abs(gain) <= CONFIDENCE * error


def mean_corruption_error(runs: Sequence[Run], label: str) -> float | None:
    """mCE in %: errors over the severities by AlexNet's, averaged over the corruptions.

    Defined for the official 15 corruptions at all five severities, all complete and passed once; else None.
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
    rates = {rate: [mean(counted(run), label, rate) for run in runs] for rate in RATES}
    gain, error = _gain(runs, label)
    results = [domain.methods[label] for run in runs for domain in run.domains]
    seconds = sum(result.seconds for result in results)
    return MethodAverage(
        accuracy=float(np.mean(rates["accuracy"])),
        top5_accuracy=float(np.mean(rates["top5_accuracy"])),
        nll=float(np.mean(rates["nll"])),
        ece=float(np.mean(rates["ece"])),
        accuracy_std=spread(rates["accuracy"]),
        top5_accuracy_std=spread(rates["top5_accuracy"]),
        nll_std=spread(rates["nll"]),
        ece_std=spread(rates["ece"]),
        gain=None if first else gain,
        gain_error=None if first else error,
        gain_is_noise=None if first else is_noise(gain, error),
        mce=mean_corruption_error(runs, label),
        forwards_per_batch=sum(result.forwards for result in results) / _batches(results),
        images_per_second=sum(result.tally.images for result in results) / seconds if seconds else 0.0,
        peak_bytes=max(result.peak_bytes for result in results),
        guarded=sum(result.guarded for result in results),
    )


def _gain(runs: Sequence[Run], label: str) -> tuple[float, float]:
    """Mean over runs of the mean difference over domains, and the larger of two estimates of its error.

    One comes from the images that both methods do not share, as if those of different corruptions were
    independent and those of other severities, rounds and (where they are) seeds the same; the other from
    the spread over seeds, as large as Student's t makes it.
    """
    gains, errors = [], []
    for run in runs:
        by_name: dict[str, list[tuple[float, float]]] = {}
        for domain in counted(run):
            by_name.setdefault(domain.name, []).append(difference(domain, label))
        pairs = [pair for differences in by_name.values() for pair in differences]
        gains.append(float(np.mean([gain for gain, _ in pairs])))
        together = [sum(error for _, error in differences) for differences in by_name.values()]
        errors.append(math.sqrt(sum(error**2 for error in together)) / len(pairs))
    choices = {tuple(domain.ids_sha256 for domain in counted(run)) for run in runs}
    by_images = float(np.mean(errors)) / math.sqrt(len(choices))
    by_seeds = (spread(gains) or 0.0) / math.sqrt(len(gains))
    by_seeds *= STUDENT[min(len(gains) - 2, len(STUDENT) - 1)] / CONFIDENCE if by_seeds else 1
    return float(np.mean(gains)), max(by_images, by_seeds)


def spread(values: Sequence[float]) -> float | None:
    """The standard deviation over seeds, unbiased; None for a single one."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def _batches(results: Iterable[MethodResult]) -> float:
    return sum(result.batches for result in results)
