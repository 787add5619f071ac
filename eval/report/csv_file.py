"""All counts and rates as CSV: a row per file, seed, domain, severity, round and method."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

from ..results.average import difference
from ..results.outcome import DomainResult
from .digest.plain_text import plain
from .digest.sources import Source

_FORMULA = ("=", "+", "-", "@")
_DOMAIN = ("severity", "round", "segment", "generated", "complete")
_COUNTS = ("batches", "forwards", "guarded", "seconds", "peak_bytes")


def render(sources: Sequence[Source]) -> bytes:
    """Return the file as UTF-8, with numbers in full precision.

    Text that a spreadsheet would interpret as a formula is prefixed with `'`.
    """
    rows = [row for source in sources for row in _rows(source)]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    return stream.getvalue().encode()


def _rows(source: Source) -> Iterator[dict[str, Any]]:
    results, protocol = source.results, source.results.protocol
    for run in results.runs:
        for domain in run.domains:
            for label in domain.methods:
                yield {
                    "file": source.path,
                    "model": results.bundle.get("model"),
                    "precision": results.bundle.get("precision"),
                    "dataset": protocol.dataset,
                    "setting": protocol.setting,
                    "subset": protocol.subset,
                    "batch_size": protocol.batch_size,
                    "seed": run.seed,
                    "domain": domain.name,
                    **_facts(domain),
                    "label": label,
                    "method": results.methods[label].get("method"),
                    **_counts(domain, label),
                }


def _facts(domain: DomainResult) -> dict[str, Any]:
    return {
        **{name: getattr(domain, name) for name in _DOMAIN},
        "domain_images": domain.images,
        "expected_images": domain.expected,
        "ids_sha256": domain.ids_sha256,
    }


def _counts(domain: DomainResult, label: str) -> dict[str, Any]:
    result, tally = domain.methods[label], domain.methods[label].tally
    gained, lost = domain.gained_and_lost(label)
    gain, error = difference(domain, label)
    return {
        "images": tally.images,
        "correct": tally.top1,
        "correct_top5": tally.top5,
        "nll_sum": tally.nll,
        "gained": gained,
        "lost": lost,
        **{name: getattr(result, name) for name in _COUNTS},
        "accuracy": tally.accuracy,
        "top5_accuracy": tally.top5_accuracy,
        "nll": tally.mean_nll,
        "ece": tally.ece,
        "gain": gain,
        "gain_error": error,
        "images_per_second": result.images_per_second,
        "bins_images": " ".join(f"{value:.0f}" for value in tally.bin_images),
        "bins_confidence": " ".join(repr(float(value)) for value in tally.bin_confidence),
        "bins_correct": " ".join(f"{value:.0f}" for value in tally.bin_correct),
    }


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    text = plain(value)
    return f"'{text}" if text.startswith(_FORMULA) else text
