"""Notes on the images of a run: how they were understood, what was left out, and what was ignored in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...data.image_names import describe_left_out
from ...data.image_reader import describe_remark
from ...engine.errors import escape_controls
from ..datasets.domain import join_names
from .outcome import DomainResult, Run

_WHERE = "\0"  # stands for the domains that a sentence is about


def describe_notes(runs: Sequence[Run]) -> list[str]:
    """Return sentences on the data, equal ones of several domains as one; skipped images are not among them.

    If a domain comes in several rounds or seeds, the largest number of remarkable images counts.
    """
    left_out: dict[str, Mapping[str, int]] = {}
    remarks: dict[str, dict[str, int]] = {}
    notes: dict[str, None] = {}
    for domain in (domain for run in runs for domain in run.domains):
        name = _name(domain)
        notes |= dict.fromkeys(map(escape_controls, domain.notes))
        left_out[name] = domain.left_out
        counts = remarks.setdefault(name, {})
        counts |= {remark: max(count, counts.get(remark, 0)) for remark, count in domain.remarks.items()}
    templates = {
        name: [
            describe_left_out(left_out[name], _WHERE),
            *(describe_remark(remark, count, _WHERE) for remark, count in remarks[name].items()),
        ]
        for name in left_out
    }
    return [*notes, *_join_domains(templates)]


def _name(domain: DomainResult) -> str:
    return escape_controls(domain.name if domain.severity is None else f"{domain.name} {domain.severity}")


def _join_domains(templates: Mapping[str, Sequence[str]]) -> list[str]:
    """Return each sentence once, with the domains that it is about in words."""
    names: dict[str, list[str]] = {}
    for name, sentences in templates.items():
        for sentence in filter(None, sentences):
            names.setdefault(sentence, []).append(name)
    everywhere = " in each domain" if len(templates) > 1 else ""
    return [
        sentence.replace(_WHERE, everywhere if len(group) == len(templates) else f" in {join_names(group)}")
        for sentence, group in names.items()
    ]
