"""Recipes: the shipped ones, and runs of small ones on ImageNet-C in miniature."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fozo.cli import cli
from fozo.data.demo import DEMO_BUNDLE
from fozo.engine.errors import InputError
from fozo.engine.registry import parse_methods
from fozo.eval.datasets.corruption_names import IMAGENET_C
from fozo.eval.datasets.dataset_request import DatasetRequest
from fozo.eval.report import csv_file, markdown
from fozo.eval.report.digest.report_digest import digest_results
from fozo.eval.report.digest.sources import collect_results
from fozo.eval.report.html import page
from fozo.eval.results.published_comparison import compare_with_published, format_comparison
from fozo.eval.results.recipe_record import Recipe
from fozo.eval.results.results_file import Results, read_results
from fozo.eval.streaming import recipe_files
from fozo.eval.streaming.experiment import prepare
from fozo.eval.streaming.recipe_files import list_recipes, load_recipe
from fozo.eval.streaming.spec import EvaluationSpec
from recipe_doubles import NAMES, make_recipe, save_miniature

SHIPPED = ["foa-50k", "fozo-5k-continual", "neo-512"]
MODEL = "fozo_demo_vit"


def run_recipe(recipe: Recipe, data: Path, out: Path) -> Results:
    request = DatasetRequest("imagenet-c", data=data, corruptions=recipe.options.corruptions)
    spec = EvaluationSpec(
        DEMO_BUNDLE,
        recipe.methods,
        request,
        subset=recipe.options.subset,
        batch_size=recipe.options.batch_size,
        seed=recipe.options.seed,
        workers=1,
        recipe=recipe,
    )
    experiment = prepare(EvaluationSpec.from_dict(spec.to_dict()))
    with experiment.network:
        for _ in experiment.run():
            pass
        experiment.results.save(out)
    return read_results(out)


# --- shipped recipes


def test_names() -> None:
    assert list_recipes() == SHIPPED
    with pytest.raises(InputError, match="no recipe 'neo'; there are: foa-50k, fozo-5k-continual, neo-512"):
        load_recipe("neo")


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_recipes_are_whole(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.options.corruptions == IMAGENET_C
    assert (recipe.options.dataset, recipe.options.severities) == ("imagenet-c", (5,))
    assert (recipe.options.batch_size, recipe.options.seeds, recipe.drawn_from) == (64, 1, 50_000)
    assert recipe.models[0] == "vit_base_patch16_224.augreg2_in21k_ft_in1k"
    labels = {figures.label for figures in recipe.published if figures.precision == "fp32"} - {None}
    assert labels == set(parse_methods(recipe.methods))
    for figures in recipe.published:
        if figures.accuracy:
            assert tuple(figures.accuracy) == IMAGENET_C
            mean = sum(figures.accuracy.values()) / 15
            assert mean == pytest.approx(figures.average, abs=0.14), figures.name  # NEO's FOA is 58.53


def test_protocols() -> None:
    protocols = {
        name: (recipe.options.setting, recipe.options.subset, recipe.images, recipe.options.seed)
        for name, recipe in zip(SHIPPED, map(load_recipe, SHIPPED), strict=True)
    }
    assert protocols == {
        "foa-50k": ("reset", "50k", 50_000, 2020),
        "fozo-5k-continual": ("continual", "5k", 5000, 2000),
        "neo-512": ("reset", "512", 512, 2020),
    }


def test_published_figures() -> None:
    neo = {figures.name: figures for figures in load_recipe("neo-512").published}
    assert list(neo) == ["NoAdapt", "FOA", "NEO", "Surgeon"]
    assert [neo[name].accuracy["contrast"] for name in neo] == [32.6, 54.5, 58.2, 31.7]
    assert [neo[name].average for name in neo] == [55.6, 58.4, 59.2, 56.1]
    assert neo["Surgeon"].label is None
    fozo = load_recipe("fozo-5k-continual")
    assert {row.label: row.average for row in fozo.list_figures("fp32") if row.label} == {
        "no_adapt": 55.57,
        "lame": 54.16,
        "t3a": 53.76,
        "foa_2": 58.13,
        "zoa": 58.56,
        "fozo": 59.52,
    }
    assert {row.label: row.average for row in fozo.list_figures("int8")} == {
        "foa_2": 57.07,
        "zoa": 56.91,
        "fozo": 58.0,
    }
    foa = {row.name: row for row in load_recipe("foa-50k").list_figures("int8")}
    assert foa["FOA"].accuracy["glass_blur"] == 51.5 and foa["T3A"].accuracy["contrast"] == 45.5
    assert load_recipe("neo-512").list_figures("int8") == list(load_recipe("neo-512").published)


# --- a run in miniature


def test_every_count_of_a_run(tmp_path: Path) -> None:
    recipe = make_recipe(models=(MODEL,))
    results = run_recipe(recipe, save_miniature(tmp_path / "data"), tmp_path / "results.json")
    assert results.recipe == recipe
    assert (results.protocol.subset, results.protocol.batch_size, results.protocol.seeds) == (
        "8-seeded",
        4,
        (2020,),
    )
    (run,) = results.runs
    assert [domain.name for domain in run.domains] == list(NAMES)
    for domain in run.domains:
        assert (domain.images, domain.available_images, domain.complete) == (8, 12, True)
        assert {label: result.tally.images for label, result in domain.methods.items()} == {
            "no_adapt": 8,
            "neo": 8,
        }
        assert {label: result.batches for label, result in domain.methods.items()} == {
            "no_adapt": 2,
            "neo": 2,
        }
    comparison = compare_with_published(results)
    assert comparison is not None and comparison.warnings == ()
    assert comparison.rows == (*NAMES, "average")
    assert [method.name for method in comparison.methods] == ["NoAdapt", "NEO", "Surgeon"]
    assert comparison.methods[0].published == (40.0, 60.0, 50.0)
    assert comparison.methods[2].measured is None
    for method, label in zip(comparison.methods[:2], ("no_adapt", "neo"), strict=True):
        right = [domain.methods[label].tally.top1 for domain in run.domains]
        expected = [100 * right[0] / 8, 100 * right[1] / 8, 100 * sum(right) / 16]
        assert method.measured == pytest.approx(expected)
    text = format_comparison(comparison).splitlines()
    assert text[0].startswith("published beside measured (here): NEO (ICLR 2026)")
    assert text[1].split() == ["NoAdapt", "NEO", "Surgeon"]
    assert text[2].split()[-5:] == ["publ.", "here", "publ.", "here", "publ."]
    assert text[3].split()[1::2] == ["40.0", "44.5", "42.0"]
    assert len({len(line) for line in text[2:6]}) == 1


def test_reports_show_published_beside_measured(tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    results = run_recipe(make_recipe(), save_miniature(tmp_path / "data"), out)
    digest = digest_results(collect_results([out])[0])
    (run,) = digest.runs
    assert run.published is not None
    assert run.published.column_groups == (("NoAdapt", 2), ("NEO", 2), ("Surgeon", 1))
    assert run.published.columns == ("published", "measured", "published", "measured", "published")
    accuracy = results.runs[0].domains[0].methods["neo"].tally.accuracy
    assert [cell.text for cell in run.published.rows[0].cells][2:4] == ["44.5", f"{100 * accuracy:.1f}"]
    assert any(
        text.startswith("Not comparable with the published figures: the model") for text in run.warnings
    )
    text = markdown.render(digest).decode()
    assert "Published beside measured, top-1 accuracy, %:" in text
    assert "| domain | NoAdapt: published | NoAdapt: measured |" in text
    assert "awesomealex1/NEO" in text
    assert "Published beside measured" in page.render(digest).decode()
    rows = list(csv.DictReader(io.StringIO(csv_file.render(digest).decode())))
    assert [(row["domain"], row["label"], row["published_accuracy"]) for row in rows] == [
        ("gaussian_noise", "no_adapt", "0.4"),
        ("gaussian_noise", "neo", "0.445"),
        ("fog", "no_adapt", "0.6"),
        ("fog", "neo", "0.665"),
    ]
    assert {(row["recipe"], row["published_average"]) for row in rows} == {
        ("neo-512", "0.5"),
        ("neo-512", "0.555"),
    }


def test_missing_images_are_an_error(tmp_path: Path) -> None:
    data = save_miniature(tmp_path / "data", images=7)
    with pytest.raises(
        InputError,
        match="takes 8 images of each corruption, found 7 in gaussian_noise and too few in 1 other",
    ):
        run_recipe(make_recipe(), data, tmp_path / "results.json")
    data = save_miniature(tmp_path / "part", images=8, names=NAMES[:1])
    with pytest.raises(InputError, match="fog"):
        run_recipe(make_recipe(), data, tmp_path / "results.json")
    data = save_miniature(tmp_path / "severity", severity=3)
    with pytest.raises(InputError, match="5"):
        run_recipe(make_recipe(), data, tmp_path / "results.json")


def test_warnings_name_what_is_not_the_published_thing(tmp_path: Path) -> None:
    recipe = make_recipe()
    results = run_recipe(recipe, save_miniature(tmp_path / "data", images=9), tmp_path / "results.json")

    def warn(changed: Recipe, **domain_facts: Any) -> tuple[str, ...]:
        for domain in results.runs[0].domains:
            vars(domain).update(domain_facts)
        comparison = compare_with_published(replace(results, recipe=changed))
        assert comparison is not None
        return comparison.warnings

    assert warn(recipe) == (
        f"The model is {MODEL}; the figures were published for vit_base_patch16_224.augreg2_in21k_ft_in1k.",
        "A corruption has 9 images; the published data has 12 of each.",
    )
    known = replace(recipe, models=(MODEL,), drawn_from=9)
    assert warn(known) == ()
    assert warn(known, unreadable=("c0/000.png",)) == (
        "The protocol takes 8 images of each corruption, and not all were predicted in: fog, gaussian_noise.",
    )
    assert warn(known, unreadable=(), generated=True) == (
        "The corruptions were generated by fozo; the published figures are of the official data.",
    )
    listed = replace(known, options=replace(known.options, subset="5k"))
    assert warn(listed, generated=False) == (
        "The images were drawn with the seed; the published ones are a list, which --subset-list takes.",
    )
    results.bundle["precision"] = "w4"
    assert warn(known) == ("The graph is w4; the published figures are of fp32.",)


def test_runs_without_a_recipe_show_no_figures(tmp_path: Path) -> None:
    results = run_recipe(make_recipe(), save_miniature(tmp_path / "data"), tmp_path / "results.json")
    assert compare_with_published(replace(results, recipe=None)) is None


# --- the command


def run_adapt(*arguments: object) -> Any:
    return CliRunner().invoke(cli, ["adapt", *map(str, arguments)])


def test_the_list() -> None:
    result = run_adapt("--recipe", "list")
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.output.splitlines()] == SHIPPED


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--batch-size", 32), "recipe neo-512 sets --batch-size to 64, found 32"),
        (("--subset", "all"), "recipe neo-512 sets --subset to 512, found all"),
        (("--setting", "continual"), "recipe neo-512 sets --setting to reset, found continual"),
        (("--severities", "3,5"), "recipe neo-512 sets --severities to 5, found 3,5"),
        (("-m", "pizo"), "recipe neo-512 sets --method to no_adapt,.*, found pizo"),
        (("--seed", 1), "sets --seed to 2020, found 1"),
        (("--orders", 3), "leaves --orders out, found 3"),
        (("--on-error", "skip"), "leaves --on-error out, found skip"),
        (("--clean", "."), "leaves --clean out"),
    ],
)
def test_options_that_contradict_a_recipe_are_refused(options: tuple[object, ...], message: str) -> None:
    result = run_adapt(DEMO_BUNDLE, "--recipe", "neo-512", *options)
    assert result.exit_code != 0
    with pytest.raises(InputError, match=message):
        raise result.exception if isinstance(result.exception, InputError) else InputError(result.output)


def test_the_command_runs_a_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe_files, "load_recipe", lambda name: make_recipe())
    data, out = save_miniature(tmp_path / "data"), tmp_path / "results.json"
    arguments = (DEMO_BUNDLE, "--recipe", "neo-512", "--data", data, "--out", out, "--quiet", "--workers", 1)
    result = run_adapt(*arguments, "--batch-size", 4)  # that of the recipe
    assert result.exit_code == 0, result.output
    assert "published beside measured (here): NEO (ICLR 2026)" in result.output
    assert "Warning: not comparable with the published figures: The model is fozo_demo_vit;" in result.output
    assert "note: Which 512 images were used is not published" in result.output
    assert read_results(out).recipe == make_recipe()
    again = run_adapt(*arguments, "--resume")
    assert "is complete already" in again.output and "published beside measured" in again.output
