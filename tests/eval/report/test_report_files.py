"""The files of the report, and its errors."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from fozo.cli import cli
from fozo.commands.report_command import report
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.errors import FozoError, InputError, OutputError
from fozo.engine.streams.adapter import Adapter
from fozo.eval.report import csv_file, markdown
from fozo.eval.report.digest.plain_text import plain
from fozo.eval.report.digest.report_digest import digest_results
from fozo.eval.report.digest.sources import Source, collect_results
from fozo.eval.results.run_facts import results_of_run
from fozo.eval.streaming.runner import evaluate
from report_doubles import (
    HOSTILE,
    LABELS,
    Page,
    domain,
    render_page,
    results_of,
    run_of,
    save_hostile,
    save_source,
)

pytest.importorskip("matplotlib", reason="the page needs matplotlib")


# --- CSV and Markdown ---


def csv_rows(*sources: Source) -> list[dict[str, str]]:
    content = csv_file.render(digest_results(sources)).decode()
    return list(csv.DictReader(io.StringIO(content)))


def test_csv_has_every_count_in_full(two_seeds: Source) -> None:
    records = csv_rows(two_seeds, two_seeds)
    assert len(records) == 2 * 2 * 3 * 2  # files, seeds, domains, methods
    content = json.loads(two_seeds.path.read_text(encoding="utf-8"))
    for index, row in enumerate(records[:12]):
        run, position, label = content["runs"][index // 6], index % 6 // 2, LABELS[index % 2]
        expected = run["domains"][position]
        assert (row["seed"], row["domain"], row["label"]) == (str(run["seed"]), expected["name"], label)
        counts = expected["methods"][label]
        for name in ("images", "correct", "correct_top5", "gained", "lost", "peak_bytes"):
            assert int(row[name]) == counts[name]
        for name in ("nll_sum", "accuracy", "top5_accuracy", "nll", "ece", "seconds", "forwards", "guarded"):
            assert float(row[name]) == counts[name]  # to the bit
        assert [float(value) for value in row["bins_confidence"].split(" ")] == counts["bins"]["confidence"]
        assert [int(value) for value in row["bins_correct"].split(" ")] == counts["bins"]["correct"]
    assert records[0]["official_images"] == ""
    assert records[0]["complete"] == "true"


def test_csv_of_hostile_names(tmp_path: Path) -> None:
    records = csv_rows(save_hostile(tmp_path / "r.json"))
    assert len(records) == len(HOSTILE) ** 2
    assert {row["label"].lstrip("'") for row in records} == {plain(name) for name in HOSTILE}
    assert not any(value.startswith(("=", "@", "+")) for row in records for value in row.values())


def cells_of(line: str) -> list[str]:
    return re.split(r"(?<!\\)\|", line)[1:-1]


def test_markdown_tables(two_seeds: Source) -> None:
    text = markdown.render(digest_results([two_seeds], "A title")).decode()
    assert text.startswith("# A title\n")
    assert "| fog | 62.0 ± 2.8 | **76.0** ± 1.4 |" in text
    assert "| snow | **51.0** ± 1.4 | **51.0** ± 0.0 \\~ |" in text
    assert "| *average* | 56.5 ± 2.1 | **63.5** ± 0.7 \\~ |" in text
    tabled = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(cells_of(line)) for line in tabled} == {10, 3}


def test_markdown_of_hostile_names(tmp_path: Path) -> None:
    source = save_hostile(tmp_path / "r.json")
    text = markdown.render(digest_results([source, source])).decode()
    widths = {len(cells_of(line)) for line in text.splitlines() if line.startswith("|")}
    assert widths == {1 + 2 * 2, 1 + 9, 1 + len(HOSTILE)}
    assert "pipe\\|d \\`code\\` \\*star\\* \\_under\\_ \\~tilde\\~" in text
    assert markdown.escape("gaussian_noise") == "gaussian_noise"
    assert not re.search(r"(?<!\\)<", text)


# --- weights and images ---


def test_every_report_says_which_weights_and_which_preparation(tmp_path: Path) -> None:
    results = results_of([run_of([domain("imagefolder", 5, 6)])])
    images = {"size": [224, 224], "resize": 248, "interpolation": "bicubic", "crop_mode": "center"}
    results.bundle |= {
        "weights": f"w.pt, SHA-256 {'ab' * 32}, model_ema",
        "weights_sha256": "ab" * 32,
        "timm_tag": "in1k",
        "mean": [0.25] * 3,
        "std": [0.5] * 3,
        "options": ["mean"],
        "image_settings": "preprocessor_config.json",
        "preprocessing": images,
        "classes": 12,
    }
    source = save_source(tmp_path / "r.json", results)
    digest = digest_results([source])
    for text in (markdown.render(digest).decode(), render_page(source).decode()):
        for word in ("abababababab…", "in1k", "0.25 0.25 0.25", "shorter side to 248", "guessing among 12"):
            assert word in text.replace("\\", "")
    (first, *_) = csv.DictReader(io.StringIO(csv_file.render(digest).decode()))
    assert (first["weights_sha256"], first["timm_tag"]) == ("ab" * 32, "in1k")
    assert first["preparation"].endswith("std 0.5 0.5 0.5 (by --mean, preprocessor_config.json)")
    for foreign in ([], "a text", {"size": 3}, {**images, "size": ["a", "b", "c"]}):
        results.bundle["preprocessing"] = foreign
        again = digest_results([save_source(tmp_path / "again.json", results), source])
        assert "unknown" in markdown.render(again).decode()


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
    sources, passed = collect_results([tmp_path, two_seeds.path])
    assert [source.name for source in sources] == ["again", "two"]
    assert passed == [tmp_path / "bench.json"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=re.escape(f"in {tmp_path / 'empty'}, found no such")):
        collect_results([tmp_path / "empty"])


def test_files_of_one_name_are_told_apart_by_their_folders(two_seeds: Source, tmp_path: Path) -> None:
    paths = [tmp_path / "a" / "r.json", tmp_path / "b" / "r.json", tmp_path / "b" / "other.json"]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        shutil.copy(two_seeds.path, path)
    assert [source.name for source in collect_results(paths)[0]] == ["a/r", "b/r", "other"]
    shutil.copy(two_seeds.path, tmp_path / "a" / "r.txt")
    assert [s.name for s in collect_results([paths[0], tmp_path / "a" / "r.txt"])[0]] == ["r.json", "r.txt"]


def test_ones_own_iterable_becomes_a_report(
    bundle_path: Path, random_images: Callable[..., Any], tmp_path: Path
) -> None:
    images, labels = random_images(20), np.arange(20) % 3
    batches = [(images[start : start + 8], labels[start : start + 8]) for start in (0, 8, 16)]
    bundle, names = Bundle.open(bundle_path), ("no_adapt", "fozo")

    def opened(**options: Any) -> dict[str, Adapter]:
        return {name: Adapter.open(bundle_path, method=name, **options) for name in names}

    methods = opened(seed=5)
    results_of_run(evaluate(methods, batches), methods, bundle, "my camera").save(tmp_path / "camera.json")
    targets = ("--csv", tmp_path / "t.csv", "--out", tmp_path / "p.html")
    assert invoke(tmp_path / "camera.json", *targets).exit_code == 0
    text = Page.of((tmp_path / "p.html").read_bytes()).text
    assert "my camera, setting continual, subset all, batch 8, seed 5, classes all" in text
    (source,), _ = collect_results([tmp_path / "camera.json"])
    results = source.results
    assert results.complete
    assert results.bundle["graph_sha256"] == bundle.graph_sha256("fp32")
    assert (results.protocol.severities, results.protocol.seeds) == ((), (5,))
    assert {label: method.method for label, method in results.methods.items()} == {
        name: name for name in names
    }
    for row, name in zip(csv.DictReader((tmp_path / "t.csv").open()), names, strict=True):
        adapter = Adapter.open(bundle_path, method=name, seed=5)
        right = [adapter.step(images).logits.argmax(axis=1) == expected for images, expected in batches]
        assert (row["label"], row["domain"], row["images"]) == (name, "stream", "20")
        assert int(row["correct"]) == int(np.concatenate(right).sum())

    some = opened(classes=[0, 1, 2])
    chosen = results_of_run(evaluate(some, batches), some, bundle, "my camera")
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
    assert results_of_run(run, one, bundle, "x", "int8").bundle["precision"] == "int8"
    with pytest.raises(InputError, match=r"on the fp32 graph of .* found others"):
        results_of_run(run, one, bundle, "x")
    with pytest.raises(InputError, match=r"on the fp32 graph of .* found others"):
        results_of_run(run, one, Bundle.open(bundle_paths[192]), "x")
    with pytest.raises(InputError, match="expected the adapters of the run, a, found b"):
        results_of_run(run, {"b": one["a"]}, bundle, "x", "int8")
    for adapters, message in (
        ({"a": adapter(seed=1), "b": adapter(seed=2)}, "expected adapters with the seed 1, found 2"),
        ({"a": adapter(), "b": adapter(precision="int8")}, "all run the same graph"),
        ({"a": adapter(classes=[0, 1]), "b": adapter(classes=[1, 0])}, "all run the same graph"),
    ):
        with pytest.raises(InputError, match=message):
            results_of_run(evaluate(adapters, batches), adapters, bundle, "x")


DAMAGE: dict[str, Any] = {
    "no JSON": lambda content: "{",
    "a list": lambda content: [],
    "an old schema": lambda content: {**content, "schema": 3},
    "another document": lambda content: {"schema": 4},
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
    "official images": ("runs", 0, "domains", 0, "official_images", "many"),
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


def save_damaged(path: Path, damage: str, source: Source) -> Path:
    """Write the results of a source with one of `DAMAGE`."""
    content = json.loads(source.path.read_text(encoding="utf-8"))
    change = DAMAGE[damage]
    if callable(change):
        content = change(content)
    else:
        *keys, last, value = change
        inner = content
        for key in keys:
            inner = inner[key]
        inner[last] = value
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_files_are_named_and_nothing_is_written(
    damage: str, two_seeds: Source, tmp_path: Path
) -> None:
    folder = tmp_path / "damaged"
    folder.mkdir()
    path = save_damaged(folder / "results.json", damage, two_seeds)
    for target in (path, folder):
        if target is folder and damage in ("a list", "another document"):
            continue  # not results at all: passed over, and then there is nothing left
        result = invoke(two_seeds.path, target, "--out", folder / "p.html", "--csv", folder / "t.csv")
        assert isinstance(result.exception, InputError), result.exception
        assert str(path) in str(result.exception)
    assert [path.name for path in folder.iterdir()] == ["results.json"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            "setting",
            "protocol.setting: expected 'reset' or 'continual' or 'rounds' or 'mixed' or 'label_shift'",
        ),
        ("no bundle", "bundle: expected an object, found nothing"),
        ("severity", "runs[0].domains[0].severity: expected an integer, found 'five'"),
        ("fewer bits", "methods.fozo: expected 13 bytes of flags for 100 images, found 3"),
        ("bins", "methods.fozo.bins: expected 15 values in each list, found [1, 15, 15]"),
        ("more right than seen", "runs[0].domains[0].methods.fozo: expected at most 100 correct, found 101"),
        ("negative", "methods.fozo.guarded: expected a number from 0 to 2^63, found -1"),
        ("trace NaN", "runs[0].traces.fozo.values.loss[0]: expected a finite number, found nan"),
    ],
)
def test_damage_is_named_by_its_field(damage: str, message: str, two_seeds: Source, tmp_path: Path) -> None:
    path = save_damaged(tmp_path / "damaged.json", damage, two_seeds)
    with pytest.raises(
        InputError, match=f"^{re.escape(str(path))}: .*{re.escape(message)}.*run fozo adapt again"
    ):
        collect_results([path])


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
