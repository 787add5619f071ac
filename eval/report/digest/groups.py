"""Averages over groups of the results: a domain, a severity or a round."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from ...results.average import MethodAverage, compute_averages, is_apart, select_counted_domains
from ...results.metrics import Tally
from ...results.outcome import DomainResult, Run
from ...results.results_file import Results

Kind = Literal["single", "average", "apart", "changed"]


@dataclass(frozen=True)
class Group:
    """A group of results.

    Attributes:
        name: name of the group.
        averages: averages by label, as from `compute_averages`.
        kind: a single group, the average over all, or a group that is not averaged, such as clean images.
        note: reason why the group is not comparable, or an empty text.
    """

    name: str
    averages: Mapping[str, MethodAverage]
    kind: Kind = "single"
    note: str = ""


def average_overall(results: Results) -> Mapping[str, MethodAverage]:
    """Return averages over all complete domains."""
    return compute_averages(results.runs)


def list_processed_domains(results: Results) -> list[DomainResult]:
    """Return every pass of every seed over a domain that has processed images."""
    return [domain for run in results.runs for domain in run.domains if count_images(domain)]


def group_by_domain(results: Results) -> list[Group]:
    """Return a group per domain over its severities and rounds, then the average, then what is not in it."""
    domains = list_processed_domains(results)
    uncounted_names = dict.fromkeys(domain.name for domain in domains if is_apart(domain))
    names = dict.fromkeys(domain.name for domain in domains)
    groups = [_group_domain(results, name) for name in names if name not in uncounted_names]
    if len(groups) > 1:
        groups.append(
            Group("average", average_overall(results), "average", "" if results.complete else "incomplete")
        )
    return groups + [replace(_group_domain(results, name), kind="apart") for name in uncounted_names]


def group_by_round(results: Results) -> list[Group]:
    """Return a group per round over the corruptions; empty if there is only one round."""
    if results.protocol.rounds == 1:
        return []
    rounds = sorted({domain.round for domain in list_processed_domains(results)})
    return [_group_by_value(results, "round", number) for number in rounds]


def group_by_severity(results: Results) -> list[Group]:
    """Return a group per severity over the corruptions; empty if there is only one severity."""
    severities = sorted(
        {domain.severity for domain in list_processed_domains(results) if domain.severity is not None}
    )
    if len(severities) < 2:
        return []
    return [_group_by_value(results, "severity", severity) for severity in severities]


def average_by_domain_and_severity(results: Results) -> dict[str, dict[int, Mapping[str, MethodAverage]]]:
    """Return averages by name and severity; empty if there is only one severity."""
    by_name: dict[str, dict[int, Mapping[str, MethodAverage]]] = {}
    if group_by_severity(results):
        for domain in list_processed_domains(results):
            if domain.severity is not None and domain.severity not in by_name.setdefault(domain.name, {}):
                matches = partial(_have_same_name_and_severity, domain)
                by_name[domain.name][domain.severity] = compute_averages(_restrict_runs(results, matches))
    return by_name


def pool_counts(results: Results, label: str) -> Tally:
    """Return the sum of the counts of all images that enter the averages, but for those by class."""
    domains = (domain for run in results.runs for domain in select_counted_domains(run))
    return add_tallies(domain.methods[label].tally for domain in domains)


def add_tallies(tallies: Iterable[Tally]) -> Tally:
    """Return the sum of some counts, but for those by class, which may be others."""
    pool = Tally()
    for tally in tallies:
        for name, value in vars(tally).items():
            if name != "classes":
                setattr(pool, name, getattr(pool, name) + value)
    return pool


def count_images(domain: DomainResult) -> int:
    """Return the number of processed images of a domain."""
    return next(iter(domain.methods.values())).tally.images


def _group_domain(results: Results, name: str) -> Group:
    return _group_matching(results, name, lambda domain: domain.name == name)


def _group_by_value(results: Results, name: str, value: int) -> Group:
    """Return the group of domains with a value of an attribute."""
    return _group_matching(results, str(value), lambda domain: getattr(domain, name) == value)


def _group_matching(results: Results, name: str, keep: Callable[[DomainResult], bool]) -> Group:
    passes = [domain for domain in list_processed_domains(results) if keep(domain)]
    return Group(name, compute_averages(_restrict_runs(results, keep)), note=_describe_deviations(passes))


def _restrict_runs(results: Results, keep: Callable[[DomainResult], bool]) -> list[Run]:
    """Return the runs restricted to some domains; interrupted passes only if there is no complete one."""
    complete = any(domain.complete for domain in list_processed_domains(results) if keep(domain))
    return [
        replace(run, domains=[d for d in run.domains if keep(d) and (d.complete or not complete)])
        for run in results.runs
    ]


def _describe_deviations(passes: list[DomainResult]) -> str:
    interrupted = [domain for domain in passes if not domain.complete]
    notes = []
    if interrupted and len(interrupted) == len(passes):
        images = sum(map(count_images, interrupted))
        notes.append(f"interrupted: first {images:,} of {sum(d.images for d in interrupted):,} images")
    elif interrupted:
        notes.append("without an interrupted pass")
    notes += dict.fromkeys(domain.count_deviation for domain in passes if domain.count_deviation)
    notes += ["the prompt was learnt from its training images"] * any(d.learnt_from for d in passes)
    return "; ".join(notes)


def _have_same_name_and_severity(one: DomainResult, other: DomainResult) -> bool:
    return (one.name, one.severity) == (other.name, other.severity)
