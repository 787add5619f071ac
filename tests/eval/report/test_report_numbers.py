"""The numbers of the report, against hand-made ones."""

from __future__ import annotations

import math
import re
import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fozo.eval.report.digest import groups, tables
from fozo.eval.report.digest import stream_curves as stream
from fozo.eval.report.digest.along_stream import digest_stream
from fozo.eval.report.digest.breakdown import digest_rounds, digest_severities
from fozo.eval.report.digest.count_rows import list_counts
from fozo.eval.report.digest.notes import list_warnings, write_headline
from fozo.eval.report.digest.reliability import digest_reliability
from fozo.eval.report.digest.sources import Source
from fozo.eval.report.html import charts
from report_doubles import Page, domain, render_page, results_of, rows, run_of, save_source

pytest.importorskip("matplotlib", reason="the page needs matplotlib")


# --- numbers ---


def test_domains_have_means_spreads_best_and_noise(two_seeds: Source) -> None:
    def both(first: float, second: float) -> str:
        return f"{(first + second) / 2:.1f} ± {statistics.stdev([first, second]):.1f}"

    assert rows(tables.tabulate_domains(two_seeds)) == {
        "fog": [both(60, 64), f"{both(75, 77)}*"],
        # 51 on average for both; all is noise
        "snow": [f"{both(50, 52)}*", f"{both(51, 51)}*~"],
        "average": [both(55, 58), f"{both(63, 64)}*~"],  # gains of 8 and 6: of two seeds nothing is sure
        "clean": [f"{both(90, 92)}*", f"{both(88, 91)}~"],
    }
    assert [row.kind for row in tables.tabulate_domains(two_seeds).rows] == [
        *("single", "single", "average", "apart")
    ]


def test_noise_is_decided_as_mcnemar_would(tmp_path: Path) -> None:
    """Of 100 images 12 are gained and 2 lost: 10 points; for the error it is one more on either side."""
    error = 100 * math.sqrt((16 / 100 - 0.1**2) / 100)
    source = save_source(tmp_path / "r.json", results_of([run_of([domain("fog", 60, 70)])]))
    (gain,) = [cells[1] for name, cells in rows(tables.tabulate_summary(source)).items() if name == "fozo"]
    assert gain == f"+10.00 ± {error:.2f}"
    close = save_source(tmp_path / "c.json", results_of([run_of([domain("fog", 60, 63)])]))
    assert 1.96 * 100 * math.sqrt((7 / 100 - 0.03**2) / 100) > 3
    assert rows(tables.tabulate_summary(close))["fozo"][1].endswith("~")


def test_summary_has_rates_and_cost(two_seeds: Source) -> None:
    summary = tables.tabulate_summary(two_seeds)
    assert summary.columns == (
        *("accuracy, %", "gain ± error", "top-5, %", "ECE, %", "NLL"),
        *("forwards", "images/s", "process, MB", "guarded"),
    )
    cells = dict(zip(summary.columns, rows(summary)["fozo"], strict=True))
    assert cells["accuracy, %"] == f"63.50 ± {statistics.stdev([63, 64]):.2f}*"
    assert cells["gain ± error"].startswith("+7.00 ± ")
    assert cells["top-5, %"] == f"68.50 ± {statistics.stdev([68, 69]):.2f}*"
    # All confidences are 70 %: the ECE of a domain is the distance of its accuracy from that.
    eces = [statistics.mean([5, 19]), statistics.mean([7, 19])]
    assert cells["ECE, %"] == f"{statistics.mean(eces):.2f} ± {statistics.stdev(eces):.2f}*"
    assert cells["NLL"] == "0.500 ± 0.000*"
    assert [cells[name] for name in summary.columns[5:]] == ["2", "400.0", "200", "0"]


def test_mean_corruption_error_where_it_is_defined(tmp_path: Path) -> None:
    from fozo.eval.results.average import ALEXNET

    every = [
        replace(domain(name, 60, 70, severity=s), benchmark="imagenet-c")
        for s in range(1, 6)
        for name in ALEXNET
    ]
    source = save_source(tmp_path / "r.json", results_of([run_of(every)], severities=(1, 2, 3, 4, 5)))
    expected = statistics.mean(100 * 40 / error for error in ALEXNET.values())
    summary = tables.tabulate_summary(source)
    assert dict(zip(summary.columns, rows(summary)["no_adapt"], strict=True))["mCE, %"] == f"{expected:.1f}"


def test_severities_and_rounds_are_averaged_not_listed(tmp_path: Path) -> None:
    names = [f"corruption_{i}" for i in range(15)]
    many = [domain(name, 50 + turn, 60 + turn, round=turn) for turn in range(1, 11) for name in names]
    source = save_source(tmp_path / "rounds.json", results_of([run_of(many)], setting="rounds", rounds=10))
    assert len(tables.tabulate_domains(source).rows) == 16
    rounds = digest_rounds(source)
    assert rounds is not None
    assert rows(rounds.table) == {str(k): [f"{50 + k}.0", f"{60 + k}.0*"] for k in range(1, 11)}
    assert rows(tables.tabulate_domains(source))["corruption_3"] == ["55.5", "65.5*"]
    assert digest_severities(source) is None
    assert Page.of(render_page(source)).rows < 80

    graded = [
        domain(name, 90 - 10 * s, 91 - 10 * s, severity=s) for s in (1, 3, 5) for name in ("fog", "snow")
    ]
    source = save_source(tmp_path / "graded.json", results_of([run_of(graded)], severities=(1, 3, 5)))
    assert rows(tables.tabulate_domains(source))["fog"] == ["60.0", "61.0*~"]
    severities = digest_severities(source)
    assert severities is not None
    assert rows(severities.table)["5"] == ["40.0", "41.0*~"]
    single = severities.details[1]
    assert (single.columns, rows(single)["snow"]) == (("1", "3", "5"), ["81.0~", "61.0~", "41.0~"])


def test_what_was_interrupted_is_left_out_or_named(tmp_path: Path) -> None:
    half = replace(domain("snow", 10, 40, images=50, complete=False), images=100)
    complete = run_of([domain("fog", 60, 75), domain("snow", 50, 60)])
    stopped = run_of([domain("fog", 60, 75), half], seed=2001)
    source = save_source(tmp_path / "r.json", results_of([complete, stopped]))
    table = tables.tabulate_domains(source)
    assert rows(table)["snow"] == ["50.0", "60.0*"]  # and not with 10 of 50
    assert [row.note for row in table.rows] == ["", "without an interrupted pass", "incomplete"]
    alone = save_source(tmp_path / "s.json", results_of([stopped]))
    assert tables.tabulate_domains(alone).rows[1].note == "interrupted: first 50 of 100 images"
    text = Page.of(render_page(source)).text
    assert "This run is incomplete: 1 of 2 seeds finished." in text
    assert "Seed 2001 stopped in snow after 50 of 100 images." in text


def test_complete_official_runs_have_no_warnings(two_seeds: Source) -> None:
    assert 'class="warning"' not in render_page(two_seeds).decode()


def test_generated_and_odd_counts_are_said(tmp_path: Path) -> None:
    domains = [domain("fog", 60, 75, generated=True), domain("snow", 50, 60, official_images=50_000)]
    source = save_source(tmp_path / "r.json", results_of([run_of(domains)]))
    report = Page.of(render_page(source))
    assert "Corruptions were generated by fozo; this is not the official data set." in report.text
    assert "Generated: fog." in report.text
    assert "not the whole published benchmark: snow has 100 of 50,000 images." in report.text
    other = save_source(tmp_path / "other.json", results_of([run_of([domain("fog", 60, 75)])]))
    several = Page.of(render_page(source, other))
    header = several.text[: several.text.index("Side by side")]
    assert "With corruptions that fozo generated, not the official data set: r." in header


@pytest.mark.parametrize(
    ("first", "other", "sentence"),
    [
        (60, 75, "fozo is the most accurate with 75.00 %, 15.00 ±"),
        (
            *(60, 61),
            "fozo (61.00 %) and no_adapt (60.00 %) are the most accurate, apart by no more than the noise.",
        ),
        (
            *(60, 60),
            "no_adapt (60.00 %) and fozo (60.00 %) are the most accurate, apart by no more than the noise.",
        ),
        (75, 60, "No method is more accurate than no_adapt, which has 75.00 %."),
    ],
)
def test_headline_claims_no_more_than_there_is(first: int, other: int, sentence: str, tmp_path: Path) -> None:
    source = save_source(tmp_path / "r.json", results_of([run_of([domain("fog", first, other)])]))
    assert sentence in Page.of(render_page(source)).text


def test_a_tie_above_the_first_method_has_no_winner(tmp_path: Path) -> None:
    results = results_of([run_of([domain("fog", 20, 75)])])
    results.runs[0].domains[0].methods["pizo"] = results.runs[0].domains[0].methods["fozo"]
    results.runs[0].traces["pizo"] = results.runs[0].traces["fozo"]
    results.methods["pizo"] = results.methods["fozo"]
    headline = write_headline(save_source(tmp_path / "r.json", results))
    assert headline.startswith("fozo (75.00 %) and pizo (75.00 %) are the most accurate, apart by no more")
    assert "; fozo is 55.00 ±" in headline and headline.endswith("above no_adapt.")


def test_fifteen_equal_deviations_are_one(tmp_path: Path) -> None:
    domains = [domain(name, 50, 60, official_images=50_000) for name in ("fog", "snow", "frost", "contrast")]
    source = save_source(tmp_path / "r.json", results_of([run_of(domains)]))
    (warning,) = list_warnings(source)
    assert warning == (
        "This is not the whole published benchmark: each of fog, snow, frost and 1 other has 100 of 50,000 "
        "images."
    )


def test_skipped_images_are_said_in_reports(tmp_path: Path) -> None:
    skipped = domain("fog", 60, 75)
    skipped.unreadable += ["a.png", "b.png"]
    source = save_source(tmp_path / "r.json", results_of([run_of([skipped])]))
    assert "skipped, by all methods alike: 2 of fog." in Page.of(render_page(source)).text
    assert {row["unreadable"] for row in list_counts(source)} == {2}


# --- along the stream ---


def test_running_accuracy_by_hand() -> None:
    accuracies = stream.compute_running_accuracy([10, 10, 10, 10], [10, 0, 5, 10], window=20)
    np.testing.assert_allclose(accuracies, [1.0, 0.5, 0.25, 0.75])
    np.testing.assert_allclose(stream.compute_running_accuracy([10, 30], [10, 0], window=500), [1.0, 0.25])
    np.testing.assert_allclose(stream.compute_running_accuracy([10, 30], [10, 0], window=1), [1.0, 0.0])


def test_running_accuracy_begins_anew_with_each_domain_and_ends_at_its_accuracy() -> None:
    run = run_of([domain("fog", 60, 75), domain("snow", 10, 20, images=90)])
    line, seeds = stream.average_running_accuracy([run], "fozo")
    assert line.images.tolist() == [50, 100, 100, 150, 190]
    np.testing.assert_allclose(line.values, [38 / 50, 0.75, np.nan, 0.2, 20 / 90])
    assert seeds == 1
    spans = stream.name_spans(run, results_of([run]).protocol)
    assert [(span.start, span.end, span.name) for span in spans] == [(0, 100, "fog"), (100, 190, "snow")]


def test_running_accuracy_leaves_out_a_seed_that_lacks_a_domain_in_between() -> None:
    """As a sweep may: its images are as many as those of the others' first domain, but are not these."""
    complete = run_of([domain("fog", 60, 70), domain("snow", 30, 40)])
    other = run_of([domain("snow", 90, 95)], seed=2001)
    line, seeds = stream.average_running_accuracy([other, complete], "fozo")
    assert (line.values[1], seeds) == (pytest.approx(0.7), 1)


def test_running_accuracy_is_a_mean_over_the_seeds_that_line_up() -> None:
    one, two = run_of([domain("fog", 60, 70)]), run_of([domain("fog", 60, 80)], seed=2001)
    line, seeds = stream.average_running_accuracy([one, two], "fozo")
    assert (line.values[-1], seeds) == (pytest.approx(0.75), 2)
    odd = run_of([domain("fog", 6, 8, images=10, complete=False)], seed=2001)
    line, seeds = stream.average_running_accuracy([one, odd], "fozo")
    assert (line.values[-1], seeds) == (pytest.approx(0.7), 1)


def test_long_streams_are_thinned_but_keep_the_end_of_each_domain() -> None:
    run = run_of([domain("fog", 9_000, 9_000, images=50_000), domain("snow", 1_000, 1_000, images=50_000)])
    assert len(run.traces["fozo"].images) == 2_000
    line, _ = stream.average_running_accuracy([run], "fozo")
    assert len(line.images) < 500
    assert {50_000, 100_000} <= set(line.images.tolist())


def test_names_of_a_long_stream_are_of_its_rounds() -> None:
    many = [domain(f"c{i}", 50, 60, round=turn) for turn in range(1, 11) for i in range(15)]
    run = run_of(many)
    spans = stream.name_spans(run, results_of([run], setting="rounds", rounds=10).protocol)
    assert [span.name for span in spans] == [f"round {turn}" for turn in range(1, 11)]
    assert (spans[1].start, spans[1].end) == (1500, 3000)


def test_mixed_domains_are_one_stretch() -> None:
    domains = [
        domain("fog", 50, 60, segment=7),
        domain("snow", 50, 60, segment=7),
        domain("clean", 9, 9, segment=8),
    ]
    run = run_of(domains)
    spans = stream.name_spans(run, results_of([run], setting="mixed").protocol)
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
    assert stream.list_diagnostics(two_seeds.results.runs[0]) == ["entropy", "epsilon", "rate"]
    digest = digest_stream(two_seeds)
    assert [chart.axis for chart in digest.driving] == ["epsilon", "rate"]
    assert [chart.axis for chart in digest.secondary] == ["entropy"]
    line = stream.make_diagnostic_curve(two_seeds.results.runs[0], "fozo", "rate")
    assert line is not None
    np.testing.assert_allclose(line.values[:3], [0.1, np.nan, np.nan])  # a gap, and the end of fog
    assert stream.make_diagnostic_curve(two_seeds.results.runs[0], "no_adapt", "rate") is None
    report = Page.of(render_page(two_seeds))
    assert [label for label in report.pictures if "over the stream: fozo" in label] == [
        f"{name} over the stream: fozo" for name in ("epsilon", "rate", "entropy")
    ]
    assert "silent" not in report.text


def test_reliability_pools_what_enters_the_averages(two_seeds: Source) -> None:
    pool = groups.pool_counts(two_seeds.results, "fozo")
    assert (pool.images, pool.top1) == (400, 75 + 51 + 77 + 51)  # without clean images
    assert pool.ece == pytest.approx(abs(0.7 - 254 / 400))
    assert (
        f"Reliability of fozo, ECE {100 * abs(0.7 - 254 / 400):.2f} %"
        in Page.of(render_page(two_seeds)).pictures
    )


def test_reliability_diagram_draws_accuracy_and_gap(tmp_path: Path) -> None:
    """250 pixels are drawn, of which the axes take 200 for 100 %: a bar of 60 %, then a gap of 10 %."""
    source = save_source(tmp_path / "r.json", results_of([run_of([domain("fog", 60, 75)])]))
    diagram = digest_reliability(source).diagrams[0]
    drawn = charts.draw_reliability(replace(diagram, series=1), "x")
    heights = []
    for path, style in re.findall(r'<path d="([^"]*)"[^>]*style="fill: ([^;"]*)', drawn):
        ys = [float(y) for y in re.findall(r"[ML] [-\d.]+ ([-\d.]+)", path)]
        heights.append((style, round(max(ys) - min(ys))))
    assert ("var(--series-1)", 120) in heights
    assert [height for style, height in heights if style.startswith("url(#x-")] == [20]


def test_labels_of_points_keep_their_distance_and_stay_inside() -> None:
    placed = charts.separate_heights([0.5, 0.51, 0.52, 0.99, 1.0], 0.1)
    assert np.diff(placed).min() > 0.1 - 1e-9
    assert max(placed) <= 1
    assert charts.separate_heights([0.1, 0.6], 0.1) == [0.1, 0.6]
