"""Hand-made results for the tests of the report, and a parser of its page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from fozo.eval.protocol import Protocol
from fozo.eval.report.digest.report_digest import digest_results
from fozo.eval.report.digest.sources import Source, collect_results
from fozo.eval.report.digest.tables import Table
from fozo.eval.report.html import page
from fozo.eval.results.bits import Bits
from fozo.eval.results.metrics import Tally
from fozo.eval.results.outcome import DomainResult, MethodResult, Run, Trace
from fozo.eval.results.results_file import MethodEntry, Results

LABELS = ("no_adapt", "fozo")

POINT = 50  # images of a point of a trace

STYLE = Path(str(page.__file__)).with_name("style.css").read_text(encoding="utf-8")


HOSTILE = (
    "<b>bold</b>",
    "a & \"b\" 'c'",
    "$\\frac{1}{2}$ $_x$",
    "pipe|d `code` *star* _under_ ~tilde~",
    "</svg></style><script>alert(1)</script>",
    "=HYPERLINK(1)",
    "_hidden",
    "日本語 🙂",
    "bell \x07 and null \x00 and \ufffe and\u202eturned",
    "long " * 40,
    "url(#p1) #010101 {first} {0} %s &amp; &lt;",
    "line\nbreak\ttab",
)


def method_result(images: int, correct: int, lost: int = 0) -> MethodResult:
    """Return a result with `correct` right images after `lost` wrong ones.

    All have a confidence of 0.7, which lies in the eleventh of 15 bins.
    """
    tally = Tally(images, correct, min(images, correct + 5), 0.5 * images)
    tally.bin_images[10], tally.bin_confidence[10], tally.bin_correct[10] = images, 0.7 * images, correct
    batches = math.ceil(images / 50)
    right = Bits([lost <= index < lost + correct for index in range(images)])
    return MethodResult(tally, right, batches, 2 * batches, 0, images / 400, 200_000_000)


def domain(name: str, first: int, other: int, images: int = 100, **facts: Any) -> DomainResult:
    """Return a domain where the second method wins some images and loses two, so that there is noise."""
    methods = {
        "no_adapt": method_result(images, first),
        "fozo": method_result(images, other, lost=max(0, first - other) + 2),
    }
    return DomainResult(
        name,
        methods,
        **{"images": images, "available_images": images, "complete": True, "ids_sha256": "ab" * 32, **facts},
    )


def run_of(domains: Sequence[DomainResult], seed: int = 2000, labels: Sequence[str] = LABELS) -> Run:
    """Return a run with the traces of its domains; a domain without a segment gets one of its own."""
    for index, result in enumerate(domains):
        result.segment = result.segment or index
    traces = {label: Trace() for label in labels}
    for result in domains:
        for label, trace in traces.items():
            tally = result.methods[label].tally
            points = math.ceil(tally.images / POINT)
            trace.images += [min(POINT, tally.images - POINT * k) for k in range(points)]
            trace.correct += [tally.top1 // points + (k < tally.top1 % points) for k in range(points)]
    return Run(seed, list(domains), traces, complete=all(result.complete for result in domains))


def results_of(runs: Sequence[Run], labels: Sequence[str] = LABELS, **protocol: Any) -> Results:
    facts: dict[str, Any] = {
        "dataset": "imagenet-c",
        "setting": "reset",
        "severities": (5,),
        "subset": "all",
        "seeds": tuple(run.seed for run in runs),
        "batch_size": 50,
        "classes": "all",
        **protocol,
    }
    return Results(
        Protocol(**facts),
        bundle={
            "path": "bundle",
            "sha256": "0" * 64,
            "model": "vit",
            "precision": "fp32",
            "graph_sha256": "1" * 64,
        },
        engine={"provider": "cpu", "workers": 2, "micro_batch": 8},
        methods={label: MethodEntry(label, 1, {}) for label in labels},
        versions={"fozo": "0.1.0", "onnxruntime": "1.20"},
        machine={"system": "Linux", "model": "A CPU", "int8_features": ["avx2"]},
        runs=list(runs),
    )


def save_source(path: Path, results: Results) -> Source:
    """Save results, and read them as the report does."""
    results.save(path)
    return collect_results([path])[0][0]


def render_page(*sources: Source, title: str | None = None) -> bytes:
    """Return the page of some results."""
    return page.render(digest_results(sources, title))


def rows(table: Table) -> dict[str, list[str]]:
    """Return the cells as text by name of the row: `*` marks the best, `~` noise."""
    return {
        row.name: [
            f"{cell.text}{' ' + cell.spread if cell.spread else ''}{'*' * cell.best}{'~' * cell.noise}"
            for cell in row.cells
        ]
        for row in table.rows
    }


class Page(HTMLParser):
    """Parser that collects the content of a page, and fails if elements do not nest."""

    EMPTY = ("meta", "br", "path", "use", "rect", "line")

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.text, self.rows = "", 0
        self.pictures: list[str] = []
        self.attributes: list[tuple[str, dict[str, str | None]]] = []

    @classmethod
    def of(cls, content: bytes) -> Page:
        parser = cls()
        parser.feed(content.decode())
        parser.close()
        assert parser.open == []
        return parser

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.attributes.append((tag, dict(attrs)))
        if tag not in self.EMPTY[:2]:
            self.open.append(tag)
        self.rows += tag == "tr"
        if tag == "svg" and "chart" in str(dict(attrs).get("class")):
            assert dict(attrs)["role"] == "img"
            self.pictures.append(str(dict(attrs)["aria-label"]))

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.attributes.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, (tag, self.open)

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


def save_hostile(path: Path) -> Source:
    """Save results with hostile names of methods, domains, model and machine."""
    first = HOSTILE[0]
    domains = []
    for name in HOSTILE:
        result = domain(name, 60, 75)
        result.methods = {label: method_result(100, 60 + k, lost=k) for k, label in enumerate(HOSTILE)}
        domains.append(result)
    run = run_of(domains, labels=HOSTILE)
    for name in HOSTILE:
        run.traces[HOSTILE[1]].values[name] = [1.0] * len(run.traces[first].images)
    results = results_of([run], HOSTILE, dataset=HOSTILE[0], subset=HOSTILE[4], classes=HOSTILE[2])
    results.bundle["model"] = results.machine["model"] = HOSTILE[4]
    results.machine[HOSTILE[0]] = HOSTILE[4]
    results.methods[first].options[HOSTILE[4]] = HOSTILE[0]
    return save_source(path, results)
