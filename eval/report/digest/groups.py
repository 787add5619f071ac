"""Averages over groups of the results: a domain, a severity or a round."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from ...datasets.domain import CLEAN
from ...results.average import MethodAverage, averages, counted
from ...results.metrics import Tally
from ...results.outcome import DomainResult, Run
from ...results.results_file import Results

Kind = Literal["part", "average", "clean"]


@dataclass(frozen=True)
class Group:
    """A group of results.

    Attributes:
        name: name of the group.
        averages: averages by label, as from `average.averages`.
        kind: one of several groups, the average over all, or clean images, which are not averaged.
        note: reason why the group is not comparable, or an empty text.
    """

    name: str
    averages: Mapping[str, MethodAverage]
    kind: Kind = "part"
    note: str = ""


def overall(results: Results) -> Mapping[str, MethodAverage]:
    """Return averages over all complete domains."""
    return averages(results.runs)


def seen(results: Results) -> list[DomainResult]:
    """Return every pass of every seed over a domain that has processed images."""
    return [domain for run in results.runs for domain in run.domains if images_of(domain)]


def by_domain(results: Results) -> list[Group]:
    """Return a group per domain over its severities and rounds, then the average, then clean images."""
    names = list(dict.fromkeys(domain.name for domain in seen(results)))
    groups = [_domain(results, name) for name in names if name != CLEAN]
    if len(groups) > 1:
        groups.append(Group("average", overall(results), "average", "" if results.complete else "incomplete"))
    return groups + [_domain(results, CLEAN) for _ in range(CLEAN in names)]


def by_round(results: Results) -> list[Group]:
    """Return a group per round over the corruptions; empty if there is only one round."""
    if results.protocol.rounds == 1:
        return []
    rounds = sorted({domain.round for domain in seen(results)})
    return [_with(results, "round", turn) for turn in rounds]


def by_severity(results: Results) -> list[Group]:
    """Return a group per severity over the corruptions; empty if there is only one severity."""
    severities = sorted({domain.severity for domain in seen(results) if domain.severity is not None})
    if len(severities) < 2:
        return []
    return [_with(results, "severity", severity) for severity in severities]


def by_domain_and_severity(results: Results) -> dict[str, dict[int, Mapping[str, MethodAverage]]]:
    """Return averages by name and severity; empty if there is only one severity."""
    by_name: dict[str, dict[int, Mapping[str, MethodAverage]]] = {}
    if by_severity(results):
        for domain in seen(results):
            if domain.severity is not None and domain.severity not in by_name.setdefault(domain.name, {}):
                same = partial(_same, domain)
                by_name[domain.name][domain.severity] = averages(_part(results, same))
    return by_name


def pooled(results: Results, label: str) -> Tally:
    """Return the pooled counts of all images that enter the averages."""
    pool = Tally()
    for run in results.runs:
        for domain in counted(run):
            for name, value in vars(domain.methods[label].tally).items():
                setattr(pool, name, getattr(pool, name) + value)
    return pool


def images_of(domain: DomainResult) -> int:
    """Return the number of processed images of a domain."""
    return next(iter(domain.methods.values())).tally.images


def _domain(results: Results, name: str) -> Group:
    kind: Kind = "clean" if name == CLEAN else "part"
    return replace(_matching(results, name, lambda domain: domain.name == name), kind=kind)


def _with(results: Results, name: str, value: int) -> Group:
    """Return the group of domains with a value of an attribute."""
    return _matching(results, str(value), lambda domain: getattr(domain, name) == value)


def _matching(results: Results, name: str, keep: Callable[[DomainResult], bool]) -> Group:
    passes = [domain for domain in seen(results) if keep(domain)]
    return Group(name, averages(_part(results, keep)), note=_note(passes))


def _part(results: Results, keep: Callable[[DomainResult], bool]) -> list[Run]:
    """Return the runs restricted to some domains; interrupted passes only if there is no complete one."""
    complete = any(domain.complete for domain in seen(results) if keep(domain))
    return [
        replace(run, domains=[d for d in run.domains if keep(d) and (d.complete or not complete)])
        for run in results.runs
    ]


def _note(passes: list[DomainResult]) -> str:
    interrupted = [domain for domain in passes if not domain.complete]
    notes = []
    if interrupted and len(interrupted) == len(passes):
        images = sum(map(images_of, interrupted))
        notes.append(f"interrupted: first {images:,} of {sum(d.images for d in interrupted):,} images")
    elif interrupted:
        notes.append("without an interrupted pass")
    notes += dict.fromkeys(domain.odd_count for domain in passes if domain.odd_count)
    return "; ".join(notes)


def _same(one: DomainResult, other: DomainResult) -> bool:
    return (one.name, one.severity) == (other.name, other.severity)
