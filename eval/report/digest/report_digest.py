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
from .published_figures import tabulate_published
from .reliability import Reliability, digest_reliability
from .sources import Source
from .speed import digest_speed
from .tables import Table, tabulate_domains, tabulate_macro_f1, tabulate_summary
from .tuning_digest import TuningsDigest, digest_tunings
from .tuning_sources import TuningSource


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
        published: accuracies of the recipe beside the measured ones, or None.
        macro_f1: macro-F1 per domain and method, or None.
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
    published: Table | None
    macro_f1: Table | None
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
        tunings: all tunings; None if there are none.
    """

    title: str
    runs: tuple[RunDigest, ...]
    comparison: Comparison | None
    origin: str
    tunings: TuningsDigest | None = None


def digest_results(sources: Sequence[Source | TuningSource], title: str | None = None) -> Digest:
    """Return the digest of some results.

    Args:
        sources: the results, at least one.
        title: heading of the report; by default the model and the data.

    Raises:
        InputError: a seed of a tuning is there twice.
    """
    files = f"{len(sources)} results files" if len(sources) > 1 else sources[0].path.name
    runs = [source for source in sources if isinstance(source, Source)]
    tuned = [source for source in sources if isinstance(source, TuningSource)]
    tunings = digest_tunings(tuned) if tuned else None
    return Digest(
        title or _make_title(runs, tuned, tunings),
        tuple(map(_digest_run, runs)),
        compare(runs) if len(runs) > 1 else None,
        f"Made by fozo {__version__} from {files}.",
        tunings,
    )


def _make_title(runs: Sequence[Source], tuned: Sequence[TuningSource], tunings: TuningsDigest | None) -> str:
    """Return the model, and what was tuned or evaluated."""
    if tunings is None:
        return make_title(runs)
    models = dict.fromkeys(str(source.record.bundle.get("model", "")) for source in tuned)
    suffix = f", and {len(runs)} other run{'s' * (len(runs) > 1)}" if runs else ""
    return f"{', '.join(models)}: {tunings.about}{suffix}"


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
        tabulate_published(source),
        tabulate_macro_f1(source),
        digest_severities(source),
        digest_rounds(source),
        digest_gains(source),
        digest_stream(source),
        digest_reliability(source),
        digest_speed([source]),
        digest_provenance(source),
        tuple(list_counts(source)),
    )
