"""The report: its numbers against hand-made ones, its page in a parser and in a browser, its files."""

from __future__ import annotations

import csv
import html
import io
import json
import math
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from doubles import child_environment, run_fozo
from fozo.cli import cli
from fozo.commands.report import report
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.errors import FozoError, InputError, OutputError
from fozo.engine.streams.adapter import Adapter
from fozo.eval.protocol import Protocol
from fozo.eval.report import csv_file, markdown
from fozo.eval.report.digest import comparison, groups, tables
from fozo.eval.report.digest import stream_curves as stream
from fozo.eval.report.digest.plain_text import plain
from fozo.eval.report.digest.sources import Source, collect
from fozo.eval.report.html import charts, page
from fozo.eval.report.html.markup import element, escape
from fozo.eval.results.bits import Bits
from fozo.eval.results.metrics import Tally
from fozo.eval.results.outcome import DomainResult, MethodResult, Run, Trace
from fozo.eval.results.results_file import Results, of_run, read
from fozo.eval.streaming.runner import evaluate
from PIL import Image

pytest.importorskip("matplotlib", reason="the page needs matplotlib")

LABELS = ("no_adapt", "fozo")
POINT = 50  # images of a point of a trace
STYLE = Path(str(page.__file__)).with_name("style.css").read_text(encoding="utf-8")


# --- hand-made results ---


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


@pytest.fixture
def two_seeds(tmp_path: Path) -> Source:
    """fog: 60 to 75 and 64 to 77 of 100 images; snow: no clear difference; and clean images."""
    seeds = [
        [domain("fog", 60, 75), domain("snow", 50, 51), domain("clean", 90, 88)],
        [domain("fog", 64, 77), domain("snow", 52, 51), domain("clean", 92, 91)],
    ]
    return saved(tmp_path / "two.json", results_of([run_of(d, 2000 + s) for s, d in enumerate(seeds)]))


def rows(table: tables.Table) -> dict[str, list[str]]:
    """The cells as a person sees them: `*` for the best, `~` for noise."""
    return {
        line.name: [
            f"{cell.text}{' ' + cell.spread if cell.spread else ''}{'*' * cell.best}{'~' * cell.noise}"
            for cell in line.cells
        ]
        for line in table.lines
    }


# --- numbers ---


def test_domains_have_means_spreads_best_and_noise(two_seeds: Source) -> None:
    def both(first: float, second: float) -> str:
        return f"{(first + second) / 2:.1f} ± {statistics.stdev([first, second]):.1f}"

    assert rows(tables.by_domain(two_seeds)) == {
        "fog": [both(60, 64), f"{both(75, 77)}*"],
        # 51 on average for both; all is noise
        "snow": [f"{both(50, 52)}*", f"{both(51, 51)}*~"],
        "average": [both(55, 58), f"{both(63, 64)}*~"],  # gains of 8 and 6: of two seeds nothing is sure
        "clean": [f"{both(90, 92)}*", f"{both(88, 91)}~"],
    }
    assert [line.kind for line in tables.by_domain(two_seeds).lines] == ["part", "part", "average", "clean"]


def test_noise_is_decided_as_mcnemar_would(tmp_path: Path) -> None:
    """Of 100 images 12 are gained and 2 lost: 10 points; for the error it is one more on either side."""
    error = 100 * math.sqrt((16 / 100 - 0.1**2) / 100)
    source = saved(tmp_path / "r.json", results_of([run_of([domain("fog", 60, 70)])]))
    (gain,) = [cells[1] for name, cells in rows(tables.summary(source)).items() if name == "fozo"]
    assert gain == f"+10.00 ± {error:.2f}"
    close = saved(tmp_path / "c.json", results_of([run_of([domain("fog", 60, 63)])]))
    assert 1.96 * 100 * math.sqrt((7 / 100 - 0.03**2) / 100) > 3
    assert rows(tables.summary(close))["fozo"][1].endswith("~")


def test_summary_has_rates_and_cost(two_seeds: Source) -> None:
    found = tables.summary(two_seeds)
    assert found.columns == (
        *("accuracy, %", "gain ± error", "top-5, %", "ECE, %", "NLL"),
        *("forwards", "images/s", "process, MB", "guarded"),
    )
    cells = dict(zip(found.columns, rows(found)["fozo"], strict=True))
    assert cells["accuracy, %"] == f"63.50 ± {statistics.stdev([63, 64]):.2f}*"
    assert cells["gain ± error"].startswith("+7.00 ± ")
    assert cells["top-5, %"] == f"68.50 ± {statistics.stdev([68, 69]):.2f}*"
    # All confidences are 70 %: the ECE of a domain is the distance of its accuracy from that.
    eces = [statistics.mean([5, 19]), statistics.mean([7, 19])]
    assert cells["ECE, %"] == f"{statistics.mean(eces):.2f} ± {statistics.stdev(eces):.2f}*"
    assert cells["NLL"] == "0.500 ± 0.000*"
    assert [cells[name] for name in found.columns[5:]] == ["2", "400.0", "200", "0"]


def test_mean_corruption_error_where_it_is_defined(tmp_path: Path) -> None:
    from fozo.eval.results.average import ALEXNET

    every = [
        replace(domain(name, 60, 70, severity=s), benchmark="imagenet-c")
        for s in range(1, 6)
        for name in ALEXNET
    ]
    source = saved(tmp_path / "r.json", results_of([run_of(every)], severities=(1, 2, 3, 4, 5)))
    expected = statistics.mean(100 * 40 / error for error in ALEXNET.values())
    found = tables.summary(source)
    assert dict(zip(found.columns, rows(found)["no_adapt"], strict=True))["mCE, %"] == f"{expected:.1f}"


def test_severities_and_rounds_are_averaged_not_listed(tmp_path: Path) -> None:
    names = [f"corruption_{i}" for i in range(15)]
    many = [domain(name, 50 + turn, 60 + turn, round=turn) for turn in range(1, 11) for name in names]
    source = saved(tmp_path / "rounds.json", results_of([run_of(many)], setting="rounds", rounds=10))
    assert len(tables.by_domain(source).lines) == 16
    by_round = tables.by_round(source)
    assert by_round is not None
    assert rows(by_round) == {str(k): [f"{50 + k}.0", f"{60 + k}.0*"] for k in range(1, 11)}
    assert rows(tables.by_domain(source))["corruption_3"] == ["55.5", "65.5*"]
    assert tables.by_severity(source) is None
    assert Page.of(page.render([source])).rows < 80

    graded = [
        domain(name, 90 - 10 * s, 91 - 10 * s, severity=s) for s in (1, 3, 5) for name in ("fog", "snow")
    ]
    source = saved(tmp_path / "graded.json", results_of([run_of(graded)], severities=(1, 3, 5)))
    assert rows(tables.by_domain(source))["fog"] == ["60.0", "61.0*~"]
    found = tables.by_severity(source)
    assert found is not None
    assert rows(found)["5"] == ["40.0", "41.0*~"]
    single = tables.severities_of(source, "fozo")
    assert single is not None
    assert (single.columns, rows(single)["snow"]) == (("1", "3", "5"), ["81.0~", "61.0~", "41.0~"])


def test_what_was_interrupted_is_left_out_or_named(tmp_path: Path) -> None:
    half = replace(domain("snow", 10, 40, images=50, complete=False), images=100)
    whole = run_of([domain("fog", 60, 75), domain("snow", 50, 60)])
    stopped = run_of([domain("fog", 60, 75), half], seed=2001)
    source = saved(tmp_path / "r.json", results_of([whole, stopped]))
    found = tables.by_domain(source)
    assert rows(found)["snow"] == ["50.0", "60.0*"]  # and not with 10 of 50
    assert [line.note for line in found.lines] == ["", "without an interrupted pass", "incomplete"]
    alone = saved(tmp_path / "s.json", results_of([stopped]))
    assert tables.by_domain(alone).lines[1].note == "interrupted: first 50 of 100 images"
    text = Page.of(page.render([source])).text
    assert "This run is incomplete: 1 of 2 seeds came to the end." in text
    assert "Seed 2001 stopped in snow after 50 of 100 images." in text


def test_complete_official_runs_have_no_warnings(two_seeds: Source) -> None:
    assert 'class="warning"' not in page.render([two_seeds]).decode()


def test_generated_and_odd_counts_are_said(tmp_path: Path) -> None:
    domains = [domain("fog", 60, 75, generated=True), domain("snow", 50, 60, expected=50_000)]
    source = saved(tmp_path / "r.json", results_of([run_of(domains)]))
    found = Page.of(page.render([source]))
    assert "Corruptions were generated by fozo; this is not the official data set." in found.text
    assert "Generated: fog." in found.text
    assert "not the whole published benchmark: snow has 100 of 50,000 images." in found.text
    other = saved(tmp_path / "other.json", results_of([run_of([domain("fog", 60, 75)])]))
    several = Page.of(page.render([source, other]))
    header = several.text[: several.text.index("Side by side")]
    assert "With corruptions that fozo generated, not the official data set: r." in header


@pytest.mark.parametrize(
    ("first", "other", "sentence"),
    [
        (60, 75, "fozo is the most accurate with 75.00 %, 15.00 ±"),
        (60, 61, "points above no_adapt are within the noise."),
        (75, 60, "No method is more accurate than no_adapt, which has 75.00 %."),
    ],
)
def test_headline_claims_no_more_than_there_is(first: int, other: int, sentence: str, tmp_path: Path) -> None:
    source = saved(tmp_path / "r.json", results_of([run_of([domain("fog", first, other)])]))
    assert sentence in Page.of(page.render([source])).text


# --- along the stream ---


def test_running_accuracy_by_hand() -> None:
    found = stream.running_accuracy([10, 10, 10, 10], [10, 0, 5, 10], window=20)
    np.testing.assert_allclose(found, [1.0, 0.5, 0.25, 0.75])
    np.testing.assert_allclose(stream.running_accuracy([10, 30], [10, 0], window=500), [1.0, 0.25])
    np.testing.assert_allclose(stream.running_accuracy([10, 30], [10, 0], window=1), [1.0, 0.0])


def test_running_accuracy_begins_anew_with_each_domain_and_ends_at_its_accuracy() -> None:
    run = run_of([domain("fog", 60, 75), domain("snow", 10, 20, images=90)])
    line, seeds = stream.accuracy([run], "fozo")
    assert line.images.tolist() == [50, 100, 100, 150, 190]
    np.testing.assert_allclose(line.values, [38 / 50, 0.75, np.nan, 0.2, 20 / 90])
    assert seeds == 1
    spans = stream.spans(run, results_of([run]).protocol)
    assert [(span.start, span.end, span.name) for span in spans] == [(0, 100, "fog"), (100, 190, "snow")]


def test_running_accuracy_leaves_out_a_seed_that_lacks_a_domain_in_between() -> None:
    """As a sweep may: its images are as many as those of the others' first domain, but are not these."""
    whole = run_of([domain("fog", 60, 70), domain("snow", 30, 40)])
    other = run_of([domain("snow", 90, 95)], seed=2001)
    line, seeds = stream.accuracy([other, whole], "fozo")
    assert (line.values[1], seeds) == (pytest.approx(0.7), 1)


def test_running_accuracy_is_a_mean_over_the_seeds_that_line_up() -> None:
    one, two = run_of([domain("fog", 60, 70)]), run_of([domain("fog", 60, 80)], seed=2001)
    line, seeds = stream.accuracy([one, two], "fozo")
    assert (line.values[-1], seeds) == (pytest.approx(0.75), 2)
    odd = run_of([domain("fog", 6, 8, images=10, complete=False)], seed=2001)
    line, seeds = stream.accuracy([one, odd], "fozo")
    assert (line.values[-1], seeds) == (pytest.approx(0.7), 1)


def test_long_streams_are_thinned_but_keep_the_end_of_each_domain() -> None:
    run = run_of([domain("fog", 9_000, 9_000, images=50_000), domain("snow", 1_000, 1_000, images=50_000)])
    assert len(run.traces["fozo"].images) == 2_000
    line, _ = stream.accuracy([run], "fozo")
    assert len(line.images) < 500
    assert {50_000, 100_000} <= set(line.images.tolist())


def test_names_of_a_long_stream_are_of_its_rounds() -> None:
    many = [domain(f"c{i}", 50, 60, round=turn) for turn in range(1, 11) for i in range(15)]
    run = run_of(many)
    spans = stream.spans(run, results_of([run], setting="rounds", rounds=10).protocol)
    assert [span.name for span in spans] == [f"round {turn}" for turn in range(1, 11)]
    assert (spans[1].start, spans[1].end) == (1500, 3000)


def test_mixed_domains_are_one_stretch() -> None:
    domains = [
        domain("fog", 50, 60, segment=7),
        domain("snow", 50, 60, segment=7),
        domain("clean", 9, 9, segment=8),
    ]
    run = run_of(domains)
    spans = stream.spans(run, results_of([run], setting="mixed").protocol)
    assert [(span.start, span.end, span.name) for span in spans] == [
        (0, 200, "all domains mixed"),
        (200, 300, "clean"),
    ]


def test_diagnostics_are_shown_the_driving_ones_first(two_seeds: Source) -> None:
    for run in two_seeds.results.runs:
        points = len(run.traces["fozo"].images)
        run.traces["fozo"].values = {
            "entropy": [0.5] * points,
            "rate": [0.1, None, *[0.3] * (points - 2)],
            "epsilon": [0.1] * points,
            "silent": [None] * points,
        }
    assert stream.diagnostics(two_seeds.results.runs[0]) == ["epsilon", "rate", "entropy"]
    line = stream.diagnostic(two_seeds.results.runs[0], "fozo", "rate")
    assert line is not None
    np.testing.assert_allclose(line.values[:3], [0.1, np.nan, np.nan])  # a gap, and the end of fog
    assert stream.diagnostic(two_seeds.results.runs[0], "no_adapt", "rate") is None
    found = Page.of(page.render([two_seeds]))
    assert [label for label in found.pictures if "over the stream: fozo" in label] == [
        f"{name} over the stream: fozo" for name in ("epsilon", "rate", "entropy")
    ]
    assert "silent" not in found.text


def test_reliability_pools_what_enters_the_averages(two_seeds: Source) -> None:
    pool = groups.pooled(two_seeds.results, "fozo")
    assert (pool.images, pool.top1) == (400, 75 + 51 + 77 + 51)  # without clean images
    assert pool.ece == pytest.approx(abs(0.7 - 254 / 400))
    assert (
        f"Reliability of fozo, ECE {100 * abs(0.7 - 254 / 400):.2f} %"
        in Page.of(page.render([two_seeds])).pictures
    )


def test_reliability_diagram_draws_accuracy_and_gap() -> None:
    """250 pixels are drawn, of which the axes take 200 for 100 %: a bar of 60 %, then a gap of 10 %."""
    pool = part(100, 60).tally
    drawn = charts.reliability("x", "label", pool, 1)
    heights = []
    for path, style in re.findall(r'<path d="([^"]*)"[^>]*style="fill: ([^;"]*)', drawn):
        ys = [float(y) for y in re.findall(r"[ML] [-\d.]+ ([-\d.]+)", path)]
        heights.append((style, round(max(ys) - min(ys))))
    assert ("var(--series-1)", 120) in heights
    assert [height for style, height in heights if style.startswith("url(#x-")] == [20]


def test_labels_of_points_keep_their_distance_and_stay_inside() -> None:
    placed = charts.spread_out([0.5, 0.51, 0.52, 0.99, 1.0], 0.1)
    assert np.diff(placed).min() > 0.1 - 1e-9
    assert max(placed) <= 1
    assert charts.spread_out([0.1, 0.6], 0.1) == [0.1, 0.6]


# --- the page ---


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


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two results with such names, in files with such names."""
    folder = tmp_path_factory.mktemp("hostile")
    return page.render(
        [hostile(folder / "<i>r&.json"), hostile(folder / f"{'$x$_name_' * 12}.json")]
    ).decode()


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


def test_hostile_names_are_text_everywhere(hostile_page: str) -> None:
    found = Page.of(hostile_page.encode())
    assert not {"b", "i", "script", "img", "iframe", "object", "link"} & {tag for tag, _ in found.attributes}
    words = " ".join(found.text.split())
    for name in HOSTILE:
        assert " ".join(plain(name).split()) in words, name
    assert "<i>r&" in words
    assert not re.search("[\x00-\x08\x0e-\x1f\u202e\ufffe]", hostile_page)


def test_hostile_names_in_charts_are_drawn_as_they_are() -> None:
    names = [name[:20] for name in HOSTILE]
    points = [charts.Point(name, 1.0 + k, float(k), 0.0, k, k) for k, name in enumerate(names)]
    drawn = charts.scatter("x", "label", points, ("x", "y"))
    texts = [html.unescape(text).strip() for text in re.findall(r"<text[^>]*>([^<]*)</text>", drawn)]
    for name in names:
        assert plain(name).strip() in texts, name
    assert "DejaVu" not in drawn


def test_the_page_needs_nothing_from_elsewhere(hostile_page: str) -> None:
    found = Page.of(hostile_page.encode())
    assert "script" not in {tag for tag, _ in found.attributes}
    for tag, attributes in found.attributes:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("href", "src", "xlink:href", "srcset", "action"):
                assert str(value).startswith("#"), (tag, value)
    assert "@import" not in hostile_page
    assert not re.search(r"url\((?!#)", STYLE)
    policy = [a["content"] for tag, a in found.attributes if tag == "meta" and "http-equiv" in a]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'"]


def test_identifiers_are_unique_and_references_lead_somewhere(hostile_page: str) -> None:
    found = Page.of(hostile_page.encode())
    identifiers = [str(attributes["id"]) for _, attributes in found.attributes if "id" in attributes]
    assert len(identifiers) == len(set(identifiers)) > 20
    for _, attributes in found.attributes:
        values = [str(attributes.get(name, "")) for name in ("href", "style", "clip-path", "fill")]
        for reference in re.findall(r"(?:^|url\()#([\w-]+)", "\n".join(values), re.M):
            assert reference in identifiers


def test_tables_and_boxes_are_accessible(two_seeds: Source) -> None:
    found = Page.of(page.render([two_seeds, two_seeds]))
    scopes = [attributes.get("scope") for tag, attributes in found.attributes if tag == "th"]
    assert set(scopes) == {"row", "col", "colgroup"}
    boxes = [attributes for _, attributes in found.attributes if attributes.get("class") == "scroll"]
    assert boxes
    assert all(box["tabindex"] == "0" and box["aria-label"] for box in boxes)
    assert len(found.pictures) == 13  # 6 of each, and the comparison
    assert all(found.pictures)
    assert ("html", {"lang": "en"}) in found.attributes


def test_what_changed_from_the_defaults_comes_first(tmp_path: Path) -> None:
    from fozo.engine.registry import options_of, parse_method

    label, method = parse_method("calm=fozo:rate=0.5,guard=rollback")
    results = results_of([run_of([domain("fog", 60, 75)])])
    results.methods = {
        "no_adapt": {"method": "no_adapt", "options": {}},
        "fozo": {"method": "fozo", "options": json.loads(json.dumps(options_of(method)))},
    }
    content = page.render([saved(tmp_path / "r.json", results)]).decode()
    assert label == "calm"
    assert "<code>fozo</code>, rate = 0.5, guard = rollback</summary>" in content
    body = content[content.index("Options of fozo") :]
    names = re.findall(r'<tr( class="changed")?><th scope="row">(\w+)</th>', body)
    assert names[:3] == [(' class="changed"', "rate"), (' class="changed"', "guard"), ("", "prompts")]
    results.methods["fozo"]["method"] = "from_elsewhere"
    assert "a method unknown to this version of fozo" in page.render(
        [saved(tmp_path / "r.json", results)]
    ).decode().replace("\n", " ")


def test_several_files_are_compared(two_seeds: Source, tmp_path: Path) -> None:
    results = results_of([run_of([domain("fog", 40, 50), domain("rain", 30, 20)])])
    results.bundle["precision"] = "int8"
    other = saved(tmp_path / "int8.json", results)
    found = Page.of(page.render([two_seeds, other], "fp32 & int8"))
    assert "fp32 & int8" in found.text
    links = [str(attributes["href"])[1:] for tag, attributes in found.attributes if tag == "a"]
    assert links == ["compared", "r1", "r2"]
    assert set(links) <= {attributes.get("id") for _, attributes in found.attributes}

    assert rows(comparison.overall([two_seeds, other]))["fozo"][2] == "35.00*"
    different = comparison.differences([two_seeds, other])
    assert different is not None
    assert rows(different)["precision"] == ["fp32", "int8"]
    assert rows(different)["seeds"] == ["2000, 2001", "2000"]
    assert not comparison.have_same_protocol([two_seeds, other])
    assert comparison.differences([two_seeds, two_seeds]) is None
    side = rows(comparison.domains([two_seeds, other]))
    assert list(side) == ["fog", "snow", "rain", "average", "clean"]
    assert side["rain"] == ["–", "–", "30.0*", "20.0"]
    assert side["snow"][2:] == ["–", "–"]


def test_equal_results_give_equal_bytes(two_seeds: Source, tmp_path: Path) -> None:
    """In another process too, where sets come in another order and matplotlib is configured otherwise."""
    (tmp_path / "configured").mkdir()
    (tmp_path / "configured" / "matplotlibrc").write_text(
        "svg.hashsalt: other\nxtick.direction: in\nsavefig.bbox: tight\n"
    )
    outputs = []
    for seed, configuration in (("1", tmp_path / "configured"), ("2", tmp_path)):
        environment = child_environment(PYTHONHASHSEED=seed, MATPLOTLIBRC=str(configuration))
        run_fozo(
            "report", two_seeds.path.name, "--out", f"{seed}.html", env=environment, cwd=tmp_path, check=True
        )
        outputs.append((tmp_path / f"{seed}.html").read_bytes())
    assert outputs[0] == outputs[1]


def test_matplotlibs_settings_are_left_alone(two_seeds: Source) -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    page.render([two_seeds])
    assert dict(matplotlib.rcParams) == before


def test_one_method_alone_and_one_image(tmp_path: Path) -> None:
    each = DomainResult("fog", {"no_adapt": part(1, 0)}, images=1, complete=True)
    each.methods["no_adapt"].seconds = 0.0
    results = results_of([run_of([each], labels=["no_adapt"])], ["no_adapt"])
    text = Page.of(page.render([saved(tmp_path / "r.json", results)])).text
    assert "no_adapt has an accuracy of 0.00 %." in text
    assert "No time was measured." in text
    assert "noise" not in text


def test_values_that_diverged_are_drawn(two_seeds: Source) -> None:
    for run in two_seeds.results.runs:
        points = len(run.traces["fozo"].images)
        run.traces["fozo"].values = {
            "loss": [(-1) ** k * 1e308 for k in range(points)],
            "rate": [1e-300] * points,
        }
    assert "loss over the stream: fozo" in Page.of(page.render([two_seeds])).pictures


def test_markup_escapes_all_but_itself() -> None:
    inside = element("b", "<&>", title='"')
    assert inside == '<b title="&quot;">&lt;&amp;&gt;</b>'
    assert element("i", inside, " & ") == f"<i>{inside} &amp; </i>"
    assert escape("\ud800") == "\ufffd"


# --- colours ---

_TO_SEEN = {  # Machado, Oliveira and Fernandes (2009), complete loss, for linear RGB
    "none": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}


def linear(colour: str) -> np.ndarray[Any, Any]:
    channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    """As WCAG 2 defines it."""
    low, high = sorted(float(linear(colour) @ [0.2126, 0.7152, 0.0722]) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


def lab(rgb: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    scaled = to_xyz @ np.clip(rgb, 0, 1) / [0.9505, 1, 1.089]
    f = np.where(scaled > 0.008856, np.cbrt(scaled), 7.787 * scaled + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def schemes() -> dict[str, Mapping[str, str]]:
    light, dark = STYLE.split("@media screen and (prefers-color-scheme: dark)")
    found = [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", text)) for text in (light, dark)]
    assert found[0].keys() == found[1].keys()
    return dict(zip(("light", "dark"), found, strict=True))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_can_be_seen_and_told_apart(scheme: str) -> None:
    colours = schemes()[scheme]
    series = [colours[f"series-{i}"] for i in range(7)]
    assert min(contrast(each, colours["surface"]) for each in series) >= 3  # WCAG for graphics
    for name in ("ink", "muted", "accent"):
        assert contrast(colours[name], colours["surface"]) >= 4.5  # WCAG for text
    assert contrast(colours["warn"], colours["warn-surface"]) >= 4.5
    for kind, matrix in _TO_SEEN.items():
        seen = [lab(matrix @ linear(each)) for each in series]
        distances = [np.linalg.norm(a - b) for i, a in enumerate(seen) for b in seen[:i]]
        assert min(distances) > 12, kind
    chroma = [float(np.hypot(*lab(linear(each))[1:])) for each in series]
    assert chroma[0] < 12 < 25 < min(chroma[1:])  # the first, and only that, is grey


# --- CSV and Markdown ---


def test_csv_has_every_count_in_full(two_seeds: Source) -> None:
    found = list(csv.DictReader(io.StringIO(csv_file.render([two_seeds, two_seeds]).decode())))
    assert len(found) == 2 * 2 * 3 * 2  # files, seeds, domains, methods
    content = json.loads(two_seeds.path.read_text(encoding="utf-8"))
    for index, row in enumerate(found[:12]):
        run, each, label = content["runs"][index // 6], index % 6 // 2, LABELS[index % 2]
        expected = run["domains"][each]
        assert (row["seed"], row["domain"], row["label"]) == (str(run["seed"]), expected["name"], label)
        counts = expected["methods"][label]
        for name in ("images", "correct", "correct_top5", "gained", "lost", "peak_bytes"):
            assert int(row[name]) == counts[name]
        for name in ("nll_sum", "accuracy", "top5_accuracy", "nll", "ece", "seconds", "forwards", "guarded"):
            assert float(row[name]) == counts[name]  # to the bit
        assert [float(value) for value in row["bins_confidence"].split(" ")] == counts["bins"]["confidence"]
        assert [int(value) for value in row["bins_correct"].split(" ")] == counts["bins"]["correct"]
    assert found[0]["expected_images"] == ""
    assert found[0]["complete"] == "true"


def test_csv_of_hostile_names(tmp_path: Path) -> None:
    found = list(csv.DictReader(io.StringIO(csv_file.render([hostile(tmp_path / "r.json")]).decode())))
    assert len(found) == len(HOSTILE) ** 2
    assert {row["label"].lstrip("'") for row in found} == {plain(name) for name in HOSTILE}
    assert not any(value.startswith(("=", "@", "+")) for row in found for value in row.values())


def cells_of(line: str) -> list[str]:
    return re.split(r"(?<!\\)\|", line)[1:-1]


def test_markdown_tables(two_seeds: Source) -> None:
    text = markdown.render([two_seeds], "A title").decode()
    assert text.startswith("# A title\n")
    assert "| fog | 62.0 ± 2.8 | **76.0** ± 1.4 |" in text
    assert "| snow | **51.0** ± 1.4 | **51.0** ± 0.0 \\~ |" in text
    assert "| *average* | 56.5 ± 2.1 | **63.5** ± 0.7 \\~ |" in text
    tabled = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(cells_of(line)) for line in tabled} == {10, 3}


def test_markdown_of_hostile_names(tmp_path: Path) -> None:
    source = hostile(tmp_path / "r.json")
    text = markdown.render([source, source]).decode()
    widths = {len(cells_of(line)) for line in text.splitlines() if line.startswith("|")}
    assert widths == {1 + 2 * 2, 1 + 9, 1 + len(HOSTILE)}
    assert "pipe\\|d \\`code\\` \\*star\\* \\_under\\_ \\~tilde\\~" in text
    assert markdown.escape("gaussian_noise") == "gaussian_noise"
    assert not re.search(r"(?<!\\)<", text)


# --- files and errors ---


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(report, [*map(str, arguments), "--quiet"])


def test_the_command_writes_what_is_asked_for(two_seeds: Source, tmp_path: Path) -> None:
    page_, table, text = tmp_path / "p.html", tmp_path / "t.csv", tmp_path / "t.md"
    result = invoke(
        two_seeds.path, "--out", page_, "--csv", table, "--markdown", text, "--title", "A <title>"
    )
    assert result.exit_code == 0, result.output
    assert "<title>A &lt;title&gt;</title>" in page_.read_text(encoding="utf-8")
    assert table.read_text(encoding="utf-8").startswith("file,model,")
    assert text.read_text(encoding="utf-8").startswith("# A \\<title\\>")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.html", "t.csv", "t.md", "two.json"]


def test_a_page_is_the_default(two_seeds: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert invoke("two.json", "--csv", "t.csv").exit_code == 0
    assert not (tmp_path / "report.html").exists()
    assert invoke("two.json").exit_code == 0
    assert (tmp_path / "report.html").exists()
    assert "fozo report fp32.json int8.json" in CliRunner().invoke(cli, ["report", "--help"]).output


def test_a_folder_is_all_results_in_it(two_seeds: Source, tmp_path: Path) -> None:
    shutil.copy(two_seeds.path, tmp_path / "again.json")
    (tmp_path / "bench.json").write_text('{"schema": 1}')
    (tmp_path / "notes.txt").write_text("no JSON")
    sources, passed = collect([tmp_path, two_seeds.path])
    assert [source.name for source in sources] == ["again", "two"]
    assert passed == [tmp_path / "bench.json"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=re.escape(f"in {tmp_path / 'empty'}, found no such")):
        collect([tmp_path / "empty"])


def test_files_of_one_name_are_told_apart_by_their_folders(two_seeds: Source, tmp_path: Path) -> None:
    paths = [tmp_path / "a" / "r.json", tmp_path / "b" / "r.json", tmp_path / "b" / "other.json"]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        shutil.copy(two_seeds.path, path)
    assert [source.name for source in collect(paths)[0]] == ["a/r", "b/r", "other"]
    shutil.copy(two_seeds.path, tmp_path / "a" / "r.txt")
    assert [s.name for s in collect([paths[0], tmp_path / "a" / "r.txt"])[0]] == ["r.json", "r.txt"]


def test_ones_own_iterable_becomes_a_report(
    bundle_path: Path, random_images: Callable[..., Any], tmp_path: Path
) -> None:
    images, labels = random_images(20), np.arange(20) % 3
    batches = [(images[start : start + 8], labels[start : start + 8]) for start in (0, 8, 16)]
    bundle, names = Bundle.open(bundle_path), ("no_adapt", "fozo")

    def opened(**options: Any) -> dict[str, Adapter]:
        return {name: Adapter.open(bundle_path, method=name, **options) for name in names}

    methods = opened(seed=5)
    of_run(evaluate(methods, batches), methods, bundle, "my camera").save(tmp_path / "camera.json")
    targets = ("--csv", tmp_path / "t.csv", "--out", tmp_path / "p.html")
    assert invoke(tmp_path / "camera.json", *targets).exit_code == 0
    text = Page.of((tmp_path / "p.html").read_bytes()).text
    assert "my camera, setting continual, subset all, batch 8, seed 5, classes all" in text
    (source,), _ = collect([tmp_path / "camera.json"])
    found = source.results
    assert found.complete
    assert found.bundle["graph_sha256"] == bundle.graph_sha256("fp32")
    assert (found.protocol.severities, found.protocol.seeds) == ((), (5,))
    assert {label: each["method"] for label, each in found.methods.items()} == {name: name for name in names}
    for row, name in zip(csv.DictReader((tmp_path / "t.csv").open()), names, strict=True):
        adapter = Adapter.open(bundle_path, method=name, seed=5)
        right = [adapter.step(part).logits.argmax(axis=1) == expected for part, expected in batches]
        assert (row["label"], row["domain"], row["images"]) == (name, "stream", "20")
        assert int(row["correct"]) == int(np.concatenate(right).sum())

    some = opened(classes=[0, 1, 2])
    chosen = of_run(evaluate(some, batches), some, bundle, "my camera")
    assert (chosen.protocol.classes, chosen.protocol.seeds) == ("3 chosen", (2000,))


def test_what_one_file_cannot_describe_is_not_saved(
    int8_bundle_path: Path, bundle_paths: dict[int, Path], random_images: Callable[..., Any]
) -> None:
    batches = [(random_images(4), np.zeros(4, np.int64))]
    bundle = Bundle.open(int8_bundle_path)

    def adapter(**options: Any) -> Adapter:
        return Adapter.open(int8_bundle_path, method="no_adapt", **options)

    one = {"a": adapter(precision="int8")}
    run = evaluate(one, batches)
    assert of_run(run, one, bundle, "x", "int8").bundle["precision"] == "int8"
    with pytest.raises(InputError, match=r"on the fp32 graph of .* found others"):
        of_run(run, one, bundle, "x")
    with pytest.raises(InputError, match=r"on the fp32 graph of .* found others"):
        of_run(run, one, Bundle.open(bundle_paths[192]), "x")
    with pytest.raises(InputError, match="expected the adapters of the run, a, found b"):
        of_run(run, {"b": one["a"]}, bundle, "x", "int8")
    for others, message in (
        ({"a": adapter(seed=1), "b": adapter(seed=2)}, "expected adapters with the seed 1, found 2"),
        ({"a": adapter(), "b": adapter(precision="int8")}, "all run the same graph"),
        ({"a": adapter(classes=[0, 1]), "b": adapter(classes=[1, 0])}, "all run the same graph"),
    ):
        with pytest.raises(InputError, match=message):
            of_run(evaluate(others, batches), others, bundle, "x")


DAMAGE: dict[str, Any] = {
    "no JSON": lambda content: "{",
    "a list": lambda content: [],
    "an old schema": lambda content: {**content, "schema": 2},
    "another document": lambda content: {"schema": 3},
    "no runs": lambda content: {**content, "runs": []},
    "runs is a number": lambda content: {**content, "runs": 3},
    "no methods": lambda content: {**content, "methods": {}},
    "methods is a list": lambda content: {**content, "methods": ["no_adapt", "fozo"]},
    "machine is a text": lambda content: {**content, "machine": "big"},
    "no bundle": lambda content: {key: value for key, value in content.items() if key != "bundle"},
    "created": lambda content: {**content, "created": None},
    "setting": ("protocol", "setting", "sideways"),
    "seeds": ("protocol", "seeds", [1.5]),
    "rounds": ("protocol", "rounds", "many"),
    "concentration": ("protocol", "concentration", -1),
    "domain": ("runs", 0, "domains", 0, "name", 7),
    "severity": ("runs", 0, "domains", 0, "severity", "five"),
    "complete": ("runs", 0, "domains", 0, "complete", "yes"),
    "expected": ("runs", 0, "domains", 0, "expected", "many"),
    "a method less": ("runs", 0, "domains", 0, "methods", {}),
    "images": ("runs", 0, "domains", 0, "methods", "fozo", "images", 99),
    "negative": ("runs", 0, "domains", 0, "methods", "fozo", "guarded", -1),
    "NaN": ("runs", 0, "domains", 0, "methods", "fozo", "seconds", math.nan),
    "infinite": ("runs", 0, "domains", 0, "methods", "fozo", "nll_sum", math.inf),
    "huge": ("runs", 0, "domains", 0, "methods", "fozo", "correct", 10**400),
    "more right than seen": ("runs", 0, "domains", 0, "methods", "fozo", "correct", 101),
    "text for a number": ("runs", 0, "domains", 0, "methods", "fozo", "forwards", "2"),
    "other images right": ("runs", 0, "domains", 0, "methods", "fozo", "right", f"{'A' * 16}=="),
    "fewer bits": ("runs", 0, "domains", 0, "methods", "fozo", "right", "AAAA"),
    "bits after the last image": lambda content: json.loads(json.dumps(content).replace('A=="', 'Q=="', 1)),
    "no bits": ("runs", 0, "domains", 0, "methods", "fozo", "right", None),
    "bits of another alphabet": ("runs", 0, "domains", 0, "methods", "fozo", "right", f"{'é' * 16}=="),
    "bins": ("runs", 0, "domains", 0, "methods", "fozo", "bins", "images", [1]),
    "huge bins": ("runs", 0, "domains", 0, "methods", "fozo", "bins", "images", [10**400] * 15),
    "trace": ("runs", 0, "traces", "fozo", "images", [50]),
    "trace of other images": lambda content: json.loads(
        json.dumps(content).replace("[50, 50, ", "[50, 49, ")
    ),
    "trace of text": ("runs", 0, "traces", "fozo", "correct", ["1"] * 6),
    "trace of another": ("runs", 0, "traces", {"other": {}}),
    "trace values": ("runs", 0, "traces", "fozo", "values", {"loss": [1.0]}),
    "trace NaN": ("runs", 0, "traces", "fozo", "values", {"loss": [math.nan] * 6}),
    "options": ("methods", "fozo", "options", None),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_files_are_named_and_nothing_is_written(
    damage: str, two_seeds: Source, tmp_path: Path
) -> None:
    content = json.loads(two_seeds.path.read_text(encoding="utf-8"))
    change = DAMAGE[damage]
    if callable(change):
        content = change(content)
    else:
        *place, last, value = change
        inner = content
        for key in place:
            inner = inner[key]
        inner[last] = value
    folder = tmp_path / "damaged"
    folder.mkdir()
    path = folder / "results.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    for target in (path, folder):
        if target is folder and damage in ("a list", "another document"):
            continue  # not results at all: passed over, and then there is nothing left
        result = invoke(two_seeds.path, target, "--out", folder / "p.html", "--csv", folder / "t.csv")
        assert isinstance(result.exception, InputError), result.exception
        assert str(path) in str(result.exception)
    assert [each.name for each in folder.iterdir()] == ["results.json"]


def test_files_that_are_missing_or_cannot_be_written(two_seeds: Source, tmp_path: Path) -> None:
    def fails(*arguments: object) -> FozoError:
        result = invoke(*arguments)
        assert isinstance(result.exception, FozoError), result.exception
        return result.exception

    assert "nowhere.json" in str(fails(tmp_path / "nowhere.json"))
    assert isinstance(fails(two_seeds.path, "--out", tmp_path / "no" / "p.html"), OutputError)
    before = two_seeds.path.read_bytes()
    assert "also in use" in str(fails(two_seeds.path, "--out", two_seeds.path))
    same = tmp_path / "same"
    assert "also in use" in str(fails(two_seeds.path, "--csv", same, "--markdown", same))
    assert two_seeds.path.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["two.json"]
    assert invoke().exit_code == 2


def test_without_matplotlib(two_seeds: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = invoke(two_seeds.path, "--out", tmp_path / "p.html", "--csv", tmp_path / "t.csv")
    assert isinstance(result.exception, InputError)
    assert 'pip install "fozo[report]"' in str(result.exception)
    assert not (tmp_path / "t.csv").exists()
    assert invoke(two_seeds.path, "--csv", tmp_path / "t.csv", "--markdown", tmp_path / "t.md").exit_code == 0
    assert (tmp_path / "t.md").exists()


# --- in a browser ---

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(
    BROWSER is None, reason="no Chromium is installed to look at the page with"
)


def browse(folder: Path, *arguments: str) -> str:
    command = [str(BROWSER), "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [f"--user-data-dir={folder / 'profile'}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout


def luminance(path: Path) -> np.ndarray[Any, Any]:
    with Image.open(path) as image:
        return np.asarray(image.convert("L"), np.float64)


@needs_browser
@pytest.mark.parametrize(("scheme", "number"), [("dark", 0), ("light", 1)])
def test_the_page_follows_the_colour_scheme(
    scheme: str, number: int, two_seeds: Source, tmp_path: Path
) -> None:
    """Background and writing, in the page and within a chart that has nothing but writing and axes."""
    content = page.render([two_seeds]).decode()
    chart = charts.steps("x", "empty", [(0, [1.0, 1.0])], ["some", "ticks"], "an axis with a name")
    style = content[content.index("<style>") : content.index("</style>") + len("</style>")]
    pages = {"page": content, "chart": f"<!DOCTYPE html><meta charset=utf-8>{style}<body>{chart}"}
    for name, text in pages.items():
        source, shot = tmp_path / f"{name}.html", tmp_path / f"{name}.png"
        source.write_text(text, encoding="utf-8")
        browse(
            tmp_path,
            f"--blink-settings=preferredColorScheme={number}",
            "--window-size=1000,1200" if name == "page" else "--window-size=600,260",
            f"--screenshot={shot}",
            source.as_uri(),
        )
        pixels = luminance(shot)
        background = np.median(pixels)
        assert background < 40 if scheme == "dark" else background > 240
        writing = np.abs(pixels - background) > 150
        assert 0.002 < writing.mean() < 0.3, name  # as much ink as there is on a page, and in a chart


@needs_browser
@pytest.mark.parametrize("width", [390, 1200])
def test_the_page_is_never_wider_than_the_window(width: int, hostile_page: str, tmp_path: Path) -> None:
    """The browser measures the page in a frame of that width; with hostile, long names."""
    policy = r'<meta http-equiv="Content-Security-Policy"[^>]*>'  # forbids to look into the page
    frame = html.escape(re.sub(policy, "", hostile_page))
    probe = "document.title = frames[0].document.documentElement.scrollWidth + ' ' + frames[0].innerWidth"
    outer = tmp_path / "outer.html"
    shown = (
        f'<iframe style="width:{width}px;height:900px;border:0" srcdoc="{frame}" onload="{probe}"></iframe>'
    )
    outer.write_text(f"<!DOCTYPE html><title></title>{shown}", encoding="utf-8")
    found = browse(tmp_path, "--window-size=1400,1000", "--dump-dom", outer.as_uri())
    measured = re.search(r"<title>(\d+) (\d+)</title>", found)
    assert measured is not None
    assert int(measured[2]) == width
    assert int(measured[1]) <= width


def test_results_are_read_as_they_were_written(two_seeds: Source) -> None:
    """The report stands on `read`: what it gives is what was saved."""
    assert read(two_seeds.path).to_json()["runs"] == two_seeds.results.to_json()["runs"]
