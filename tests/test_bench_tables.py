"""Tables of the documents, as bench/tables.py prints them from bench/results/."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest
from bench_doubles import BENCH, import_bench
from fozo.evaluation import read_results

RESULTS = sorted((BENCH / "results").glob("*.json"))
DOCUMENT = "Before.\n\n<!-- table: numbers -->\n| old |\n<!-- end -->\n\nAfter.\n"


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return import_bench(monkeypatch, "tables")


def test_documents_show_the_results(tables: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    status = tables.main(["--check"])
    assert status == 0, f"{capsys.readouterr().out}run python bench/tables.py"


def test_every_table_is_shown(tables: ModuleType) -> None:
    text = "".join(document.read_text(encoding="utf-8") for document in tables.DOCUMENTS)
    assert set(re.findall(r"<!-- table: ([\w-]+) -->", text)) == tables.TABLES.keys()


def test_every_number_of_a_results_file_is_from_a_complete_seed() -> None:
    accuracy = [path for path in RESULTS if path.stem.startswith(("family-", "pizo-stream"))]
    assert accuracy
    for path in accuracy:
        results = read_results(path)
        assert results.runs[0].complete, path
        assert results.machine["model"] and results.versions["fozo"], path


def test_tables_are_replaced_between_their_marks(tables: ModuleType) -> None:
    replaced = tables.replace_tables(DOCUMENT, {"numbers": lambda: "| new |"})
    assert replaced == DOCUMENT.replace("old", "new")


def test_a_table_without_an_end_is_an_error(tables: ModuleType) -> None:
    with pytest.raises(ValueError, match="behind each of 2 tables, found it behind 1"):
        tables.replace_tables(f"<!-- table: numbers -->\n\n{DOCUMENT}", {"numbers": lambda: ""})


def test_an_unknown_table_is_an_error(tables: ModuleType) -> None:
    with pytest.raises(KeyError, match="numbers"):
        tables.replace_tables(DOCUMENT, {})


def test_check_changes_nothing(
    tables: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    document = tmp_path / "document.md"
    text = "<!-- table: results -->\n| old |\n<!-- end -->\n"
    document.write_text(text, encoding="utf-8")
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    monkeypatch.setattr(tables, "DOCUMENTS", (document,))
    assert tables.main(["--check"]) == 1
    assert document.read_text(encoding="utf-8") == text
    assert tables.main([]) == 0
    assert all(path.name in document.read_text(encoding="utf-8") for path in RESULTS)
    assert tables.main(["--check"]) == 0
    assert capsys.readouterr().out.splitlines() == ["document.md: outdated", "document.md: rewritten"]
