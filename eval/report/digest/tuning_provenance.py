"""The provenance of tunings: options, data, files, model, program and machine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any

from ....engine.bundle.origin import describe_preparation, describe_weights
from ...tuning.tuning_presets import PRESETS
from ...tuning.tuning_spec import TuningSpec
from .provenance import NAMES_OF_MACHINE, Fact, FactSheet, MethodOptions, format_duration, list_facts
from .tables import NONE, Cell, Row, Table
from .tuning_sources import Tuning, TuningSource, describe_data, format_option
from .tuning_tables import name_tunings

_DIGITS = 12  # of a shortened hash


@dataclass(frozen=True)
class TuningProvenance:
    """Everything that tunings were made with.

    Attributes:
        sentences: data, shots and seeds of every tuning.
        methods: options of every tuning.
        files: a row for each seed.
        fact_sheets: facts about models, programs and machines.
    """

    sentences: tuple[str, ...]
    methods: tuple[MethodOptions, ...]
    files: Table
    fact_sheets: tuple[FactSheet, ...]


def digest_tuning_provenance(tunings: Sequence[Tuning]) -> TuningProvenance:
    """Return how tunings were made."""
    names = name_tunings(tunings)
    named = list(zip(names, tunings, strict=True))
    sources = [source for tuning in tunings for source in tuning.sources]
    return TuningProvenance(
        tuple(f"{name}: {explain_tuning(tuning)}" for name, tuning in named),
        tuple(_describe_options(name, tuning) for name, tuning in named),
        _tabulate_files(tunings, names),
        (
            *_make_sheets("Model", (_describe_model(source) for source in sources)),
            *_make_sheets("Program", (list_facts(_get_versions(source), {}) for source in sources)),
            *_make_sheets("Machine", (list_facts(s.record.machine, NAMES_OF_MACHINE) for s in sources)),
        ),
    )


def explain_tuning(tuning: Tuning) -> str:
    """Return in one sentence what was learnt from."""
    record, shots = tuning.record, tuning.facts["shots"]
    seeds = [str(source.seed) for source in tuning.sources]
    choice = f"{shots} of each class" if shots else "all of them"
    return (
        f"learnt from {len(record.images):,} training images ({choice}) of {len(record.class_ids):,} classes "
        f"of {describe_data(tuning)}, with the seed{'s' * (len(seeds) > 1)} {', '.join(seeds)} for the "
        "choice of images and all random numbers."
    )


def get_tuning_defaults(method: str) -> dict[str, Any]:
    """Return the defaults of a method's options; empty if this version does not know the method."""
    if method not in PRESETS:
        return {}
    plain = {field.name: field.default for field in fields(TuningSpec) if field.default is not MISSING}
    return {**plain, **PRESETS[method]}


def _describe_options(name: str, tuning: Tuning) -> MethodOptions:
    method, options = str(tuning.facts["method"]), tuning.options
    defaults = get_tuning_defaults(method)
    changed = [key for key, value in options.items() if key in defaults and value != defaults[key]]
    texts = [f"{key} = {format_option(key, options[key])}" for key in changed]
    summary = ", ".join(texts) or "default options"
    if not defaults:
        summary = "a method unknown to this version of fozo"
    rows = []
    for key in (*changed, *(key for key in options if key not in changed)):
        default = format_option(key, defaults[key]) if key in defaults else NONE
        cells = Cell(format_option(key, options[key])), Cell(default)
        rows.append(Row(key, cells, "changed" if key in changed else "single"))
    table = Table(f"Options of {name}", "option", ("value", "default"), tuple(rows))
    return MethodOptions(name, method, summary, table if rows else None)


def _tabulate_files(tunings: Sequence[Tuning], names: Sequence[str]) -> Table:
    rows = []
    for name, tuning in zip(names, tunings, strict=True):
        for source in tuning.sources:
            record = source.record
            texts = (
                str(source.seed),
                record.head,
                str(record.tuning.get("images_sha256", NONE))[:_DIGITS],
                format_duration(record.seconds),
                "yes" if record.complete else "NO",
                record.created,
                str(source.path),
                source.sha256[:_DIGITS],
            )
            rows.append(Row(name, tuple(map(Cell, texts))))
    columns = ("seed", "head", "hash of the shots", "time", "complete", "written", "file", "hash of the file")
    return Table("Runs", "tuning", columns, tuple(rows))


def _describe_model(source: TuningSource) -> tuple[Fact, ...]:
    """Return facts that are the same for all seeds: storing a head changes the manifest, and no graph."""
    bundle, tuning = source.record.bundle, source.record.tuning
    facts = [
        Fact("model", str(bundle.get("model", NONE))),
        Fact("precision", str(tuning.get("precision", NONE))),
        Fact("bundle", str(bundle.get("path", NONE))),
        Fact("SHA-256 of the image graph", str(tuning.get("graph_sha256", NONE)), code=True),
        Fact("SHA-256 of the text side", str(tuning.get("text_sha256", NONE)), code=True),
    ]
    if "preprocessing" in bundle:
        facts.append(Fact("weights", describe_weights(bundle)))
        facts.append(Fact("preparation of images", describe_preparation(bundle)))
    return tuple(facts)


def _get_versions(source: TuningSource) -> Mapping[str, Any]:
    versions = source.record.tuning.get("versions")
    return versions if isinstance(versions, dict) else {}


def _make_sheets(title: str, facts: Iterable[tuple[Fact, ...]]) -> list[FactSheet]:
    """Return a sheet for each different set of facts, numbered if there are several."""
    different = list(dict.fromkeys(facts))
    if len(different) == 1:
        return [FactSheet(title, different[0])]
    return [FactSheet(f"{title} {number}", sheet) for number, sheet in enumerate(different, 1)]
