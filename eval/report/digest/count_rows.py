"""All counts and rates as rows: one per file, seed, domain, severity, round and method."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ....engine.bundle.origin import describe_preparation
from ...results.average import compute_gain
from ...results.outcome import DomainResult
from .published_figures import list_published_columns
from .sources import Source

_DOMAIN = ("severity", "round", "segment", "generated", "learnt_from", "complete")
_COSTS = ("batches", "forwards", "guarded", "seconds", "peak_bytes", "pull_backs")


def list_counts(source: Source) -> Iterator[dict[str, Any]]:
    """Yield a row per seed, pass over a domain, and method, by name of the column."""
    results, protocol = source.results, source.results.protocol
    for run in results.runs:
        for domain in run.domains:
            for label in domain.methods:
                yield {
                    "file": source.path,
                    "model": results.bundle.get("model"),
                    "precision": results.bundle.get("precision"),
                    "weights_sha256": results.bundle.get("weights_sha256"),
                    "timm_tag": results.bundle.get("timm_tag"),
                    "preparation": describe_preparation(results.bundle),
                    "dataset": protocol.dataset,
                    "setting": protocol.setting,
                    "subset": protocol.subset,
                    "batch_size": protocol.batch_size,
                    "seed": run.seed,
                    "domain": domain.name,
                    **_describe_domain(domain),
                    "label": label,
                    "method": results.methods[label].method,
                    **_list_method_counts(domain, label),
                    **list_published_columns(source, domain.name, label),
                }


def _describe_domain(domain: DomainResult) -> dict[str, Any]:
    return {
        **{name: getattr(domain, name) for name in _DOMAIN},
        "domain_images": domain.images,
        "official_images": domain.official_images,
        "unreadable": len(domain.unreadable),
        "remarks": " ".join(f"{remark}:{count}" for remark, count in domain.remarks.items()),
        "ids_sha256": domain.ids_sha256,
    }


def _list_method_counts(domain: DomainResult, label: str) -> dict[str, Any]:
    result = domain.methods[label]
    return {
        **list_rates(domain, label),
        **{name: getattr(result, name) for name in _COSTS},
        "images_per_second": result.images_per_second,
    }


def list_rates(domain: DomainResult, label: str) -> dict[str, Any]:
    """Return the counts of a method, what follows from them, and its gain over the first, by column."""
    tally = domain.methods[label].tally
    gained, lost = domain.count_gained_and_lost(label)
    gain, error = compute_gain(domain, label)
    return {
        "images": tally.images,
        "correct": tally.top1,
        "correct_top5": tally.top5,
        "nll_sum": tally.nll,
        "gained": gained,
        "lost": lost,
        "accuracy": tally.accuracy,
        "macro_f1": tally.macro_f1,
        "top5_accuracy": tally.top5_accuracy,
        "nll": tally.mean_nll,
        "ece": tally.ece,
        "gain": gain,
        "gain_error": error,
        "bins_images": " ".join(f"{value:.0f}" for value in tally.bin_images),
        "bins_confidence": " ".join(repr(float(value)) for value in tally.bin_confidence),
        "bins_correct": " ".join(f"{value:.0f}" for value in tally.bin_correct),
    }
