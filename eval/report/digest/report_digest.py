"""Everything that a report says, as one value: renderers only print it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...._version import __version__
from ....engine.bundle.origin import describe_origin
from .along_stream import AlongStream, digest_stream
from .breakdown import Breakdown, digest_rounds, digest_severities
from .chart_data import ScatterChart
from .comparison import Comparison, compare
from .count_rows import list_counts
from .explanations import make_title
from .gains import Gains, digest_gains
from .notes import list_warnings, write_headline
from .provenance import Provenance, digest_provenance
from .reliability import Reliability, digest_reliability
from .sources import Source
from .speed import digest_speed
from .tables import Table, tabulate_domains, tabulate_summary


@dataclass(frozen=True)
class RunDigest:
    """The part of a report about one results file.

    Attributes:
        name: short name of the file.
        about: model, precision, data and setting in a few words.
        labels: labels of the methods.
        protocol: the protocol in one line.
        origin: weights, and preparation of images, each in one line.
        warnings: facts that a reader must know before the numbers.
        headline: the main result in one sentence.
        summary: rates and cost of every method.
        domains: accuracy per domain and method.
        severities, rounds: accuracy by severity and by round, or None.
        gains: gains over the first method, or None.
        stream: course of the stream.
        reliability: reliability of every method.
        speed: accuracy against time of every method.
        provenance: protocol, methods, data, model, program and machine.
        counts: all counts and rates, a row per seed, domain and method.
    """

    name: str
    about: str
    labels: tuple[str, ...]
    protocol: str
    origin: tuple[str, ...]
    warnings: tuple[str, ...]
    headline: str
    summary: Table
    domains: Table
    severities: Breakdown | None
    rounds: Breakdown | None
    gains: Gains | None
    stream: AlongStream
    reliability: Reliability
    speed: ScatterChart
    provenance: Provenance
    counts: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class Digest:
    """A report, independent of the format that it is written in.

    Attributes:
        title: heading of the report.
        runs: one per results file.
        comparison: comparison of the files; None if there is only one.
        origin: files and version of fozo that the report was made from.
    """

    title: str
    runs: tuple[RunDigest, ...]
    comparison: Comparison | None
    origin: str


def digest_results(sources: Sequence[Source], title: str | None = None) -> Digest:
    """Return the digest of some results.

    Args:
        sources: the results, at least one.
        title: heading of the report; by default the model and the data.
    """
    is_comparison = len(sources) > 1
    files = f"{len(sources)} results files" if is_comparison else sources[0].path.name
    return Digest(
        title or make_title(sources),
        tuple(map(_digest_run, sources)),
        compare(sources) if is_comparison else None,
        f"Made by fozo {__version__} from {files}.",
    )


def _digest_run(source: Source) -> RunDigest:
    bundle, protocol = source.results.bundle, source.results.protocol
    model = f"{bundle.get('model', '')} {bundle.get('precision', '')}"
    return RunDigest(
        source.name,
        f"{model}, {protocol.dataset}, {protocol.setting}",
        tuple(source.labels),
        protocol.describe(),
        tuple(describe_origin(bundle).splitlines()) if "preprocessing" in bundle else (),
        tuple(list_warnings(source)),
        write_headline(source),
        tabulate_summary(source),
        tabulate_domains(source),
        digest_severities(source),
        digest_rounds(source),
        digest_gains(source),
        digest_stream(source),
        digest_reliability(source),
        digest_speed([source]),
        digest_provenance(source),
        tuple(list_counts(source)),
    )
