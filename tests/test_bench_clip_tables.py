"""Tables of the CLIP-like model, from hand-made results (bench/clip_tables.py)."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace

import pytest
from bench_doubles import import_bench
from fozo.eval.results.outcome import Run
from report_doubles import domain, method_result, run_of


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return import_bench(monkeypatch, "clip_tables")


def make_run(*labels: str) -> Run:
    """Return a complete run: 20 of 100 images right with the first method, ten more with each further one."""
    domains = [domain("fog", 0, 0), domain("clean", 0, 0)]
    for result in domains:
        result.methods = {
            label: method_result(100, 20 + 10 * index + 50 * (result.name == "clean"))
            for index, label in enumerate(labels)
        }
    return run_of(domains, labels=labels)


def provide(tables: ModuleType, monkeypatch: pytest.MonkeyPatch, runs: dict[str, Run]) -> None:
    monkeypatch.setattr(tables, "has_results", lambda name: name in runs)
    monkeypatch.setattr(tables, "read_accuracy", lambda name: SimpleNamespace(runs=[runs[name]]))


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def test_a_row_for_each_method_of_each_file(tables: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = {"clip-one": make_run("no_adapt", "zero"), "clip-sapt": make_run("no_adapt", "stss")}
    provide(tables, monkeypatch, runs)
    rows = cells(tables.tabulate_clip())
    assert [row[:3] for row in rows] == [
        ["`no_adapt`", "one template", "20.0"],
        ["`zero`", "one template", "30.0"],
        ["`no_adapt`", "SAPT", "20.0"],
        ["`stss`", "SAPT", "30.0"],
    ]
    assert rows[0][3] == "–" and rows[1][3].startswith("+10.0 (") and rows[2][3] == "+0.0 (+0.0 to +0.0)"
    assert [row[4] for row in rows] == ["70.0", "80.0", "70.0", "80.0"]
    assert len(rows[1]) == 8 and float(rows[1][-1]) > 0
    assert cells(tables.tabulate_clip_domains())[1] == ["`zero`", "one template", "30.0", "80.0"]


def test_a_column_for_each_number_of_views(tables: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    provide(
        tables, monkeypatch, {"clip-views": make_run("no_adapt", "zero-8", "stss-8", "zero-16", "stss-16")}
    )
    rows = cells(tables.tabulate_views())
    assert rows[0] == ["`no_adapt`", "20.0", "–"]
    assert [row[0] for row in rows] == ["`no_adapt`", "`zero`", "`stss`"]
    assert rows[1][1].startswith("30.0, +10.0 (") and rows[1][2].startswith("50.0, +30.0 (")


def test_settings_are_compared_with_their_method(tables: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    provide(
        tables, monkeypatch, {"clip-settings": make_run("zero", "zero-kept-0.1", "stss", "stss-radius-1")}
    )
    rows = cells(tables.tabulate_settings())
    assert [row[:2] for row in rows[:2]] == [["`zero`", "as it is"], ["`zero`", "`kept=0.1`"]]
    assert rows[0][3] == "–" and rows[1][3].startswith("+10.0 (") and rows[3][3].startswith("+10.0 (")


def test_speed_is_by_that_of_open_clip(tables: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    document = {
        "views": {"fozo int8": 0.5, "open_clip fp32": 2.0},
        "texts": {"fozo": 1.0, "open_clip, 77 tokens": 30.0},
        "peak_mb": {"zero int8": 512.4},
    }
    monkeypatch.setattr(tables, "has_results", lambda name: True)
    monkeypatch.setattr(tables, "read_document", lambda name: document)
    assert [row[3] for row in cells(tables.tabulate_clip_speed())] == ["4.00", "1.00", "30.00", "1.00"]
    assert cells(tables.tabulate_clip_memory()) == [["`zero int8`", "512"]]


def test_missing_results_are_named(tables: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    provide(tables, monkeypatch, {})
    for build in (
        tables.tabulate_clip,
        tables.tabulate_clip_domains,
        tables.tabulate_views,
        tables.tabulate_settings,
        tables.tabulate_clip_speed,
        tables.tabulate_clip_memory,
    ):
        assert build() == "Not measured yet: `bench/run.sh clip`."
