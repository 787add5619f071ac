"""Hand-made results for the tests of the report, and a parser of its page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from fozo.eval.protocol import Protocol
from fozo.eval.report.digest import tables
from fozo.eval.report.digest.sources import Source, collect
from fozo.eval.report.html import page
from fozo.eval.results.bits import Bits
from fozo.eval.results.metrics import Tally
from fozo.eval.results.outcome import DomainResult, MethodResult, Run, Trace
from fozo.eval.results.results_file import Results

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


def part(images: int, correct: int, lost: int = 0) -> MethodResult:
    """The first images are right, but for those lost, and then others instead.

    All have a confidence of 0.7, which lies in the eleventh of 15 bins.
    """
    tally = Tally(images, correct, min(images, correct + 5), 0.5 * images)
    tally.bin_images[10], tally.bin_confidence[10], tally.bin_correct[10] = images, 0.7 * images, correct
    batches = math.ceil(images / 50)
    right = Bits([lost <= index < lost + correct for index in range(images)])
    return MethodResult(tally, right, batches, 2 * batches, 0, images / 400, 200_000_000)


def domain(name: str, first: int, other: int, images: int = 100, **facts: Any) -> DomainResult:
    """The second method gains two images more than it needs and loses two, so that there is noise."""
    methods = {
        "no_adapt": part(images, first),
        "fozo": part(images, other, lost=max(0, first - other) + 2),
    }
    return DomainResult(
        name,
        methods,
        **{"images": images, "found": images, "complete": True, "ids_sha256": "ab" * 32, **facts},
    )


def run_of(domains: Sequence[DomainResult], seed: int = 2000, labels: Sequence[str] = LABELS) -> Run:
    """A run whose traces follow from its domains; each is a segment unless it names one."""
    for place, each in enumerate(domains):
        each.segment = each.segment or place
    traces = {label: Trace() for label in labels}
    for each in domains:
        for label, trace in traces.items():
            tally = each.methods[label].tally
            points = math.ceil(tally.images / POINT)
            trace.images += [min(POINT, tally.images - POINT * k) for k in range(points)]
            trace.correct += [tally.top1 // points + (k < tally.top1 % points) for k in range(points)]
    return Run(seed, list(domains), traces, complete=all(each.complete for each in domains))


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
        methods={label: {"method": label, "forwards_per_batch": 1, "options": {}} for label in labels},
        versions={"fozo": "0.1.0", "onnxruntime": "1.20"},
        machine={"system": "Linux", "model": "A CPU", "int8_features": ["avx2"]},
        runs=list(runs),
    )


def saved(path: Path, results: Results) -> Source:
    results.save(path)
    return collect([path])[0][0]


def rows(table: tables.Table) -> dict[str, list[str]]:
    """The cells as a person sees them: `*` for the best, `~` for noise."""
    return {
        line.name: [
            f"{cell.text}{' ' + cell.spread if cell.spread else ''}{'*' * cell.best}{'~' * cell.noise}"
            for cell in line.cells
        ]
        for line in table.lines
    }


class Page(HTMLParser):
    """Takes a page apart, and fails where elements do not nest."""

    EMPTY = ("meta", "br", "path", "use", "rect", "line")

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.text, self.rows = "", 0
        self.pictures: list[str] = []
        self.attributes: list[tuple[str, dict[str, str | None]]] = []

    @classmethod
    def of(cls, content: bytes) -> Page:
        found = cls()
        found.feed(content.decode())
        found.close()
        assert found.open == []
        return found

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


def hostile(path: Path) -> Source:
    """Names of all kinds that no one should choose, for methods, domains, the model and the machine."""
    first = HOSTILE[0]
    domains = []
    for name in HOSTILE:
        each = domain(name, 60, 75)
        each.methods = {label: part(100, 60 + k, lost=k) for k, label in enumerate(HOSTILE)}
        domains.append(each)
    run = run_of(domains, labels=HOSTILE)
    for name in HOSTILE:
        run.traces[HOSTILE[1]].values[name] = [1.0] * len(run.traces[first].images)
    results = results_of([run], HOSTILE, dataset=HOSTILE[0], subset=HOSTILE[4], classes=HOSTILE[2])
    results.bundle["model"] = results.machine["model"] = HOSTILE[4]
    results.machine[HOSTILE[0]] = HOSTILE[4]
    results.methods[first]["options"] = {HOSTILE[4]: HOSTILE[0]}
    return saved(path, results)
