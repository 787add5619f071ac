"""The section on provenance: protocol, methods, data, model, program and machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ....engine.bundle.origin import describe_classes, describe_preparation, describe_weights
from ....engine.registry import METHODS, get_options, list_common_options
from ...results.results_file import MethodEntry
from .explanations import explain_protocol
from .groups import list_processed_domains
from .sources import Source
from .tables import NONE, Cell, Row, Table

_DIGITS = 12  # of a shortened hash
_NAMES_OF_ENGINE = {"workers": "threads", "micro_batch": "images per call"}
NAMES_OF_MACHINE = {
    "model": "processor",
    "int8_features": "instructions for int8",
    "cpus": "processors available",
    "cpus_online": "processors online",
}


@dataclass(frozen=True)
class Fact:
    """A named value; `code` marks values for programs, such as hashes."""

    name: str
    value: str
    code: bool = False


@dataclass(frozen=True)
class FactSheet:
    """Facts about one thing, such as the model."""

    title: str
    facts: tuple[Fact, ...]


@dataclass(frozen=True)
class MethodOptions:
    """A method with its options.

    Attributes:
        label: label of the method.
        method: registered name of the method.
        summary: changed options in a few words.
        table: all options with their defaults, the changed ones first; None if there are no options.
    """

    label: str
    method: str
    summary: str
    table: Table | None


@dataclass(frozen=True)
class Provenance:
    """Everything that a run was made with.

    Attributes:
        protocol: the protocol in sentences.
        methods: the methods with their options.
        data: a row per domain.
        fact_sheets: facts about the model, the results file, the program and the machine.
    """

    protocol: tuple[str, ...]
    methods: tuple[MethodOptions, ...]
    data: Table
    fact_sheets: tuple[FactSheet, ...]


def digest_provenance(source: Source) -> Provenance:
    """Return the section on provenance."""
    results = source.results
    return Provenance(
        tuple(explain_protocol(results.protocol)),
        tuple(_describe_method(label, method) for label, method in results.methods.items()),
        _tabulate_data(source),
        (
            FactSheet("Model", tuple(_describe_model(source))),
            FactSheet("Results", tuple(_describe_file(source))),
            FactSheet(
                "Program", list_facts(results.versions, {}) + list_facts(results.engine, _NAMES_OF_ENGINE)
            ),
            FactSheet("Machine", list_facts(results.machine, NAMES_OF_MACHINE)),
        ),
    )


def get_defaults(name: str) -> dict[str, Any]:
    """Return the defaults of a method and of the common options; empty if the method does not exist."""
    if name not in METHODS:
        return {}
    common = {option.name: option.default for option in list_common_options()}
    return {**common, **get_options(METHODS[name])}


def _describe_method(label: str, method: MethodEntry) -> MethodOptions:
    name, options = method.method, method.options
    defaults = get_defaults(name)
    changed = [key for key, value in options.items() if key in defaults and value != defaults[key]]
    if not options:
        return MethodOptions(label, name, "no options", None)
    summary = ", ".join(f"{key} = {_format(options[key])}" for key in changed) or "default options"
    if not defaults:
        summary = "a method unknown to this version of fozo"
    ordered = [*changed, *(key for key in options if key not in changed)]
    rows = tuple(
        Row(
            key,
            (Cell(_format(options[key])), Cell(_format(defaults[key]) if key in defaults else NONE)),
            "changed" if key in changed else "single",
        )
        for key in ordered
    )
    return MethodOptions(
        label, name, summary, Table(f"Options of {label}", "option", ("value", "default"), rows)
    )


def _tabulate_data(source: Source) -> Table:
    domains = list_processed_domains(source.results)
    rows = []
    for name in dict.fromkeys(domain.name for domain in domains):
        passes = [domain for domain in domains if domain.name == name]
        texts = (
            _join_counts({domain.images for domain in passes}),
            _join_counts({domain.official_images for domain in passes if domain.official_images is not None})
            or NONE,
            "generated" if any(domain.generated for domain in passes) else "as found",
            f"{sum(domain.complete for domain in passes)} of {len(passes)}",
            ", ".join(dict.fromkeys(domain.ids_sha256[:_DIGITS] for domain in passes)),
        )
        rows.append(Row(name, tuple(map(Cell, texts))))
    columns = ("images", "official images", "corruption", "complete passes", "hash of the images")
    return Table("Data", "domain", columns, tuple(rows))


def _describe_model(source: Source) -> list[Fact]:
    bundle = source.results.bundle
    statistics = bundle.get("source")
    facts = [
        Fact("model", str(bundle.get("model", NONE))),
        Fact("precision", str(bundle.get("precision", NONE))),
        Fact("bundle", str(bundle.get("path", NONE))),
        Fact("SHA-256 of the bundle", _format_hash(bundle.get("sha256")), code=True),
        Fact("SHA-256 of the graph", _format_hash(bundle.get("graph_sha256")), code=True),
    ]
    if "preprocessing" in bundle:
        facts.append(Fact("weights", describe_weights(bundle)))
        facts.append(Fact("preparation of images", describe_preparation(bundle)))
    if "head" in bundle or "transfer" in bundle:
        facts.append(Fact("classes", describe_classes(bundle)))
    if isinstance(statistics, dict):
        images, origin = statistics.get("images", NONE), statistics.get("origin", NONE)
        facts.append(Fact("source statistics", f"{images} images: {origin}"))
    return facts


def _describe_file(source: Source) -> list[Fact]:
    results = source.results
    seconds = sum(domain.seconds for domain in list_processed_domains(results))
    return [
        Fact("file", str(source.path)),
        Fact("SHA-256 of the file", source.sha256, code=True),
        Fact("written", results.created),
        Fact("complete", "yes" if results.complete else "NO"),
        Fact("images processed", f"{sum(run.images for run in results.runs):,}"),
        Fact("time with loading", format_duration(seconds)),
    ]


def list_facts(values: Mapping[str, Any], names: Mapping[str, str]) -> tuple[Fact, ...]:
    """Return values as facts, some of them with a more readable name given by key."""
    return tuple(Fact(names.get(key, key), _format(value)) for key, value in values.items())


def format_duration(seconds: float) -> str:
    """Return a time in the unit that fits it."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _format_hash(value: object) -> str:
    return NONE if value is None else str(value)


def _join_counts(counts: set[int]) -> str:
    return ", ".join(f"{count:,}" for count in sorted(counts))


def _format(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return NONE if value is None or value == "" else str(value)
