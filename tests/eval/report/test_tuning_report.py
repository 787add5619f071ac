"""Reports of tunings against formulas on the predictions, their files, and their page."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from fozo.commands.report_command import report
from fozo.engine.errors import InputError
from fozo.eval.report import csv_file, markdown
from fozo.eval.report.digest.report_digest import Digest, digest_results
from fozo.eval.report.digest.sources import Source, collect_results
from fozo.eval.report.digest.tuning_digest import TuningsDigest
from fozo.eval.report.html import page
from fozo.eval.results.average import STUDENT
from metric_doubles import compute_macro_f1
from report_doubles import HOSTILE, Page, rows
from tuning_report_doubles import (
    PLAIN,
    TUNED,
    make_evaluation,
    make_labels,
    make_tuning,
    predict,
    save_seeds,
    save_tuning,
)

RATES = {1: 0.7, 2: 0.8, 3: 0.75}
NAME = f"“{PLAIN}”"


def digest(*paths: Path) -> Digest:
    return digest_results(collect_results(paths)[0])


def digest_tunings(*paths: Path) -> TuningsDigest:
    tunings = digest(*paths).tunings
    assert tunings is not None
    return tunings


def describe(values: np.ndarray) -> str:
    """Return mean and unbiased standard deviation in percent."""
    return f"{100 * values.mean():.2f} ± {100 * values.std(ddof=1):.2f}"


# --- numbers


def test_rates_and_gains_are_those_of_the_formulas(tmp_path: Path) -> None:
    (each,) = digest_tunings(save_seeds(tmp_path, RATES)).sets
    labels, plain = make_labels(), predict(0.5, 0)
    right = np.array([predict(rate, seed) == labels for seed, rate in RATES.items()])
    untuned = plain == labels
    macro = np.array([compute_macro_f1(labels, predict(rate, seed)) for seed, rate in RATES.items()])
    gains = right.mean(1) - untuned.mean()
    errors = []
    for row, gain in zip(right, gains, strict=True):
        differing = (row != untuned).sum() + 2
        errors.append(math.sqrt((differing / 400 - gain**2) / 400))
    error = max(np.mean(errors), gains.std(ddof=1) / math.sqrt(3) * STUDENT[1] / 1.96)
    table = rows(each.rates)
    assert list(table) == [NAME, "zip"]
    accuracy, gain, macro_f1, *_, seeds = table["zip"]
    assert accuracy == f"{describe(right.mean(1))}*"
    assert gain == f"+{100 * gains.mean():.2f} ± {100 * error:.2f}"
    assert macro_f1 == f"{describe(macro)}*"
    assert seeds == "1, 2, 3"
    assert table[NAME][:3] == [
        f"{100 * untuned.mean():.2f}",
        "–",
        f"{100 * compute_macro_f1(labels, plain):.2f}",
    ]
    assert table[NAME][-1] == "–"
    assert f"{100 * gains.mean():.2f} ± {100 * error:.2f} points above {NAME}" in each.headline
    assert each.about == "ViT-B-16 fp32, 400 images of 4 classes"


def test_a_gain_within_the_noise_is_marked(tmp_path: Path) -> None:
    (each,) = digest_tunings(save_seeds(tmp_path, {1: 0.5, 2: 0.52, 3: 0.53})).sets
    assert rows(each.rates)["zip"][1].endswith("~")
    assert "apart by no more than the noise" in each.headline


def test_tunings_that_differ_by_no_more_than_noise_share_the_headline(tmp_path: Path) -> None:
    """The better of two methods on the same images, seed by seed."""
    save_seeds(tmp_path, {1: 0.9, 2: 0.9, 3: 0.9}, name="a")
    save_seeds(tmp_path, {1: 0.91, 2: 0.89, 3: 0.9}, name="b", method="bpt")
    save_seeds(tmp_path, {1: 0.6, 2: 0.6, 3: 0.6}, name="c", method="gda")
    (each,) = digest_tunings(tmp_path).sets
    first = each.headline.split(" are the most accurate, apart by no more than the noise")[0]
    assert "zip (" in first and "bpt (" in first and "gda" not in first


def test_the_published_template_stands_beside_the_plain_one(tmp_path: Path) -> None:
    prompts = {PLAIN: predict(0.5, 0), "{} texture.": predict(0.8, 0), TUNED: predict(0.9, 1)}
    path = save_tuning(tmp_path / "tuning.json", make_tuning(1, make_evaluation(prompts)))
    tunings = digest_tunings(path)
    table = rows(tunings.sets[0].rates)
    assert list(table) == [NAME, "“{} texture.”", "zip"]
    published = (predict(0.8, 0) == make_labels()).mean()
    assert table["“{} texture.”"][0] == f"{100 * published:.2f}"
    assert table["“{} texture.”"][1].startswith("+")
    assert "A single seed: zip." in tunings.warnings[0]


def test_several_tunings_side_by_side(tmp_path: Path) -> None:
    """Two methods on two data sets, of which one lacks a method on the second."""
    for method, images, rates in (
        ("zip", "pets", RATES),
        ("bpt", "pets", {1: 0.6, 2: 0.65, 3: 0.6}),
        ("zip", "cars", {1: 0.9, 2: 0.95, 3: 0.9}),
    ):
        save_seeds(tmp_path, rates, method=method, images=images, name=f"{method}-{images}", data=images)
    tunings = digest_tunings(tmp_path)
    assert tunings.labels == (NAME, "bpt", "zip") and tunings.about == "bpt, zip on pets, cars"
    accuracy, macro_f1 = tunings.side_by_side
    table = rows(accuracy)
    assert (list(table), accuracy.columns) == (["pets", "cars", "average"], (NAME, "bpt", "zip"))
    labels = make_labels()
    both = np.array(
        [
            [(predict(rate, seed) == labels).mean() for seed, rate in rates.items()]
            for rates in (RATES, {1: 0.9, 2: 0.95, 3: 0.9})
        ]
    )
    assert table["cars"][1] == "–"
    assert table["average"][1] == "–"
    assert table["average"][2] == f"{describe(both.mean(0))}*"
    expected = [[compute_macro_f1(labels, predict(rate, seed)) for seed, rate in RATES.items()]]
    assert rows(macro_f1)["pets"][2] == f"{describe(np.array(expected[0]))}*"
    assert [row.name for row in tunings.cost.rows] == ["bpt on pets", "zip on cars", "zip on pets"]


def test_harmonic_means_are_of_the_means(tmp_path: Path) -> None:
    labels = make_labels()
    for seed, base, new in ((1, 0.9, 0.4), (2, 0.8, 0.6)):
        evaluations = [
            make_evaluation({PLAIN: predict(0.5, 9), TUNED: predict(base, seed)}, "base"),
            make_evaluation({PLAIN: predict(0.7, 9), TUNED: predict(new, seed)}, "new"),
        ]
        save_tuning(tmp_path / f"{seed}.json", make_tuning(seed, *evaluations, classes="base"))
    (table,) = digest_tunings(tmp_path).base_to_new
    base = np.mean([(predict(rate, seed) == labels).mean() for seed, rate in ((1, 0.9), (2, 0.8))])
    new = np.mean([(predict(rate, seed) == labels).mean() for seed, rate in ((1, 0.4), (2, 0.6))])
    plain = [(predict(rate, 9) == labels).mean() for rate in (0.5, 0.7)]
    cells = {name: [cell.rstrip("*") for cell in row] for name, row in rows(table).items()}
    assert cells["zip"] == [f"{100 * value:.2f}" for value in (base, new, 2 * base * new / (base + new))]
    harmonic = 2 * plain[0] * plain[1] / sum(plain)
    assert cells[NAME] == [f"{100 * value:.2f}" for value in (*plain, harmonic)]


def test_new_classes_alone_have_no_harmonic_mean(tmp_path: Path) -> None:
    evaluation = make_evaluation({PLAIN: predict(0.5, 9), TUNED: predict(0.6, 1)}, "new")
    for classes in ("base", "all"):
        path = save_tuning(tmp_path / f"{classes}.json", make_tuning(1, evaluation, classes=classes))
        assert digest_tunings(path).base_to_new == ()


def test_curves_are_over_calls_and_have_the_mean_of_the_seeds(tmp_path: Path) -> None:
    save_seeds(tmp_path, RATES)
    save_seeds(tmp_path, RATES, method="gda", name="gda")
    (chart,) = digest_tunings(tmp_path).curves
    (curve,) = chart.curves  # a closed form has none
    assert curve.label == "zip" and len(curve.seeds) == 3
    assert curve.mean.images.tolist() == [10, 20] and curve.mean.values.tolist() == [2, 0]
    assert [seed.values.tolist() for seed in curve.seeds] == [[1, 0], [2, 0], [3, 0]]


def test_cost(tmp_path: Path) -> None:
    table = rows(digest_tunings(save_seeds(tmp_path, RATES)).cost)
    assert table["zip"] == ["2", "20", "80", "64", "no", "12.0 ± 1.0"]


# --- labels and files


def test_labels_say_in_what_tunings_of_a_method_differ(tmp_path: Path) -> None:
    save_seeds(tmp_path, RATES, name="a", update="spsa-clip", rank=5)
    save_seeds(tmp_path, RATES, name="b", update="spsa", rank=5)
    save_seeds(tmp_path, RATES, name="c", method="gda")
    labels = digest_tunings(tmp_path).labels
    assert labels == (NAME, "zip, update spsa-clip", "zip, update spsa", "gda")


def test_tunings_that_only_a_file_tells_apart(tmp_path: Path) -> None:
    save_seeds(tmp_path, RATES, name="a")
    save_seeds(tmp_path, RATES, name="b", graph_sha256="3" * 64)
    assert digest_tunings(tmp_path).labels == (NAME, "zip (a-1)", "zip (b-1)")


def test_equal_tunings_of_other_data_on_the_same_images(tmp_path: Path) -> None:
    save_seeds(tmp_path, RATES, name="a", data="cats")
    save_seeds(tmp_path, RATES, name="b", data="dogs")
    tunings = digest_tunings(tmp_path)
    assert tunings.labels == (NAME, "zip on cats", "zip on dogs")
    assert [row.name for row in tunings.cost.rows] == ["zip on cats", "zip on dogs"]


def test_what_sums_up_seeds_stands_for_their_files(tmp_path: Path) -> None:
    path = save_seeds(tmp_path, RATES)
    expected = [tmp_path / f"tuning-{seed}.json" for seed in RATES]
    for paths in ([path], [tmp_path], [path, tmp_path], [*expected, path]):
        sources, skipped = collect_results(paths)
        assert [source.path for source in sources] == expected and skipped == []
    expected[1].unlink()
    with pytest.raises(InputError, match=r"expected tuning-2\.json, which .*tuning\.json sums up, beside it"):
        collect_results([path])


@pytest.mark.parametrize("file", ["../x.json", "/etc/passwd", "", ".", 3, None])
def test_a_summary_names_files_beside_it_only(file: Any, tmp_path: Path) -> None:
    path = tmp_path / "tuning.json"
    path.write_text(json.dumps({"kind": "tuning-seeds", "runs": [{"file": file}]}))
    with pytest.raises(InputError, match="expected the files of seeds under runs"):
        collect_results([path])


def test_a_seed_that_is_there_twice(tmp_path: Path) -> None:
    save_seeds(tmp_path / "a", RATES)
    save_seeds(tmp_path / "b", RATES)
    with pytest.raises(
        InputError, match=r"expected different seeds of zip on pets, found 1 in .*leave one out"
    ):
        digest(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content.pop("cost"), "cost: expected an object, found nothing"),
        (lambda content: content["tuning"].pop("seed"), "tuning.seed: expected int, found None"),
        (lambda content: content["curve"].clear(), "curve: expected lists of equal length"),
        (lambda content: content["cost"].update(steps=0), "cost: expected at least one step"),
        (
            lambda content: content["evaluations"][0]["prompts"].pop(TUNED),
            r"evaluations\[0\].prompts: expected a template and then tuned, found a photo",
        ),
        (
            lambda content: content["evaluations"][0]["prompts"][PLAIN].update(correct=3),
            r"prompts.a photo of a \{\}..right: expected 3 right images",
        ),
        (
            lambda content: content["evaluations"][0]["prompts"][PLAIN]["by_class"]["images"].append(0),
            "by_class: expected lists of equal length",
        ),
        (
            lambda content: content["evaluations"][0]["prompts"][PLAIN]["by_class"].update(
                images=[400, 400, 0, 0], predicted=[400, 400, 0, 0]
            ),
            "by_class: expected",
        ),
    ],
)
def test_damage_is_named_by_its_field(damage: Callable[[Any], Any], message: str, tmp_path: Path) -> None:
    save_seeds(tmp_path, {1: 0.7})
    path = tmp_path / "tuning-1.json"
    content = json.loads(path.read_text())
    damage(content)
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=message) as error:
        collect_results([path])
    assert "run fozo tune again" in str(error.value) and str(path) in str(error.value)


# --- CSV, Markdown and the page


def test_csv_has_a_row_per_seed_and_prompt(tmp_path: Path, two_seeds: Source) -> None:
    save_seeds(tmp_path / "runs", RATES)
    content = csv_file.render(digest(tmp_path / "runs", two_seeds.path)).decode()
    records = list(csv.DictReader(io.StringIO(content)))
    tuned = [row for row in records if row["dataset"] == "pets"]
    assert len(tuned) == 6 and len(records) == 6 + 2 * 3 * 2
    assert [row["label"] for row in tuned[:2]] == [PLAIN, "zip"]
    assert [row["method"] for row in tuned[:2]] == ["", "zip"]
    labels = make_labels()
    for row, (seed, rate) in zip(tuned[1::2], RATES.items(), strict=True):
        predictions = predict(rate, seed)
        assert (row["seed"], row["target"], row["calls"]) == (str(seed), "test", "20")
        assert int(row["correct"]) == (predictions == labels).sum()
        assert float(row["macro_f1"]) == pytest.approx(compute_macro_f1(labels, predictions))
        assert row["ids_sha256"] == "hash of pets test" and row["batches"] == ""
    assert all(row["calls"] == "" for row in records if row["dataset"] != "pets")


def test_markdown_has_the_tables(tmp_path: Path) -> None:
    save_seeds(tmp_path, RATES)
    text = markdown.render(digest(tmp_path)).decode()
    assert text.startswith("# ViT\\-B-16: zip on pets") or text.startswith("# ViT-B-16: zip on pets")
    for title in ("Rates on pets:", "Cost of each seed:", "learnt from 64 training images"):
        assert title in text
    assert text.count("| zip | ") == 2 and "Gains are differences in accuracy to" in text


def test_the_page_has_tables_curves_and_provenance(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    save_seeds(tmp_path, RATES)
    content = page.render(digest(tmp_path))
    parsed = Page.of(content)
    assert "Training loss over the calls, pets" in parsed.pictures
    assert f"Reliability of {NAME}, ECE" in " ".join(parsed.pictures)
    hashes = [json.loads((tmp_path / f"tuning-{seed}.json").read_text())["head"] for seed in RATES]
    for text in (*hashes, "9.8.7", "A CPU", "1" * 64, "2" * 64, "ViT-B-16", "1" * 12, "Test images: pets"):
        assert text in parsed.text
    assert "<nav" not in content.decode()
    identifiers = [attributes["id"] for _, attributes in parsed.attributes if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    assert page.render(digest(tmp_path)) == content


def test_curves_have_a_colour_for_each_tuning_and_thin_lines_for_seeds(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    save_seeds(tmp_path, RATES)
    save_seeds(tmp_path, RATES, method="bpt", name="bpt")
    content = page.render(digest(tmp_path)).decode()
    start = content.index('aria-label="Training loss over the calls, pets"')
    drawing = content[start : content.index("</svg>", start)]
    for series in (1, 2):
        lines = re.findall(rf'<path[^>]*style="fill: none; stroke: var\(--series-{series}\)[^"]*"', drawing)
        thin = [line for line in lines if "opacity" in line]
        assert (len(lines), len(thin)) == (4, 3)


def test_tunings_and_other_runs_share_a_page(tmp_path: Path, two_seeds: Source) -> None:
    pytest.importorskip("matplotlib")
    save_seeds(tmp_path / "runs", RATES)
    both = digest(two_seeds.path, tmp_path / "runs")
    assert both.title == "ViT-B-16: zip on pets, and 1 other run" and both.comparison is None
    content = page.render(both).decode()
    headings = re.findall(r'<h2 class="run" id="(\w+)">([^<]*)</h2>', content)
    assert headings == [("tunings", "Tunings"), ("r1", both.runs[0].name)]
    assert content.count("<nav") == 1
    Page.of(content.encode())
    text = markdown.render(both).decode()
    assert text.index("## Tunings") < text.index(f"## {markdown.escape(both.runs[0].name)}")


def test_hostile_names_are_text_everywhere(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for number, name in enumerate(HOSTILE):
        prompts = {name: predict(0.5, 9), TUNED: predict(0.7, number)}
        record = make_tuning(number, make_evaluation(prompts, images=name), method=name, data=name)
        record = replace(record, head=name, bundle={"model": name, "path": name})
        save_tuning(tmp_path / f"{number}.json", record)
    found = digest(tmp_path)
    parsed = Page.of(page.render(found))
    tags = {tag for tag, _ in parsed.attributes}
    assert not tags & {"script", "b", "img"} and not any("\x00" in text for text in parsed.text)
    assert all(
        "<script" not in line for line in csv_file.render(found).decode().splitlines() if line[0] == "<"
    )
    markdown.render(found)


def test_the_command(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    save_seeds(tmp_path / "runs", RATES)
    (tmp_path / "runs" / "other.json").write_text("{}")
    out = tmp_path / "page.html"
    arguments = [str(tmp_path / "runs"), "--out", str(out), "--quiet", "--csv", str(tmp_path / "a.csv")]
    result = CliRunner().invoke(report, arguments)
    assert result.exit_code == 0, result.output
    assert "Passed over" in result.output and "other.json" in result.output
    assert b"Training curves" in out.read_bytes()
    refused = CliRunner().invoke(
        report, [str(tmp_path / "runs"), "--csv", str(tmp_path / "runs/tuning-1.json")]
    )
    assert "which is also in use" in str(refused.exception)


def test_a_tuning_without_test_images(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = save_tuning(tmp_path / "tuning.json", make_tuning(1))
    found = digest(path)
    assert found.tunings is not None
    assert found.tunings.warnings == ("No test images were classified; give fozo tune --evaluate test.",)
    Page.of(page.render(found))
    markdown.render(found)
    assert csv_file.render(found) == b"\n"
