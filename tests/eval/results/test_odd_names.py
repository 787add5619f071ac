"""Names that are code elsewhere: formulas of plotting libraries and spreadsheets, commands of terminals."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from fozo.engine.errors import InputError
from fozo.engine.registry import parse_method
from fozo.eval.predict.prediction_row import Guess, Row
from fozo.eval.predict.row_format import csv_line, csv_values, json_line
from fozo.eval.protocol import Protocol
from fozo.eval.report.digest.plain_text import shorten
from fozo.eval.results.csv_text import protect_cell
from fozo.eval.results.metrics import Tally
from fozo.eval.results.outcome import DomainResult, MethodResult, Run, Trace
from fozo.eval.results.plot import save_plot
from fozo.eval.results.table import format_domain_name
from fozo.eval.sweep.cell import Cell
from fozo.eval.sweep.cell_results import CellResults
from fozo.eval.sweep.sweep_table import format_csv
from PIL import Image
from sweep_doubles import CELL

FORMULAS = ["=1+1", "+49", "-photo.jpg", "@SUM(A1)", "\tx", "\rx"]
PLAIN = ["photo.jpg", "a=b", "1-2", "'quoted", "", " =1"]


@pytest.mark.parametrize("name", [r"$\frac{", "$", "_^{$}$", "\\", "a\nb", "金魚"])
def test_names_that_are_mathematics_to_the_plotting_library(name: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    result = MethodResult(Tally(10, 5, 9), batches=1, forwards=1, seconds=1.0)
    run = Run(0, [DomainResult(name, {name: result}, images=10, complete=True)], {name: Trace([10], [5])})
    save_plot(tmp_path / "p.png", [run], f"title {name}")
    with Image.open(tmp_path / "p.png") as picture:
        assert min(picture.size) > 300


@pytest.mark.parametrize("text", FORMULAS)
def test_formulas_are_text_in_csv_and_raw_in_json(text: str) -> None:
    row = Row(text, (Guess(text, text, 3, 0.5),), 1)
    ((path, class_id, class_name, *numbers),) = csv.reader(io.StringIO(csv_line(csv_values(row, 1))))
    assert path == class_id == class_name == f"'{text}"
    assert numbers == ["3", "0.5", "1", ""]
    document = json.loads(json_line(row, 1))
    assert document["path"] == document["class_name"] == text


@pytest.mark.parametrize("text", PLAIN)
def test_other_text_is_as_it_was(text: str) -> None:
    assert protect_cell(text) == text


def test_numbers_are_no_formulas() -> None:
    assert [protect_cell(value) for value in (-1.5, -2, None, True)] == [-1.5, -2, None, True]


def fake_results(cell: Cell) -> CellResults:
    result = MethodResult(Tally(10, 5, 9), batches=1, forwards=1, seconds=1.0)
    domain = DomainResult(cell.domain, {cell.label: result}, images=10, complete=True)
    return CellResults(
        Protocol("x", "reset", (), "all", (cell.seed,), 4, "all"),
        bundle={},
        engine={},
        methods={},
        runs=[Run(cell.seed, [domain], {cell.label: Trace([10], [5])}, complete=True)],
        cell=cell,
        versions={"onnxruntime": "1"},
        machine={"model": "x"},
    )


def test_the_table_of_a_sweep_has_no_formulas() -> None:
    cell = replace(CELL, label="=cmd|' /C calc'!A0", model="-m")
    (row,) = csv.DictReader(io.StringIO(format_csv({cell: fake_results(cell)})))
    assert (row["method"], row["model"]) == ("'=cmd|' /C calc'!A0", "'-m")


@pytest.mark.parametrize("spec", ["a\nb=no_adapt", "no_adapt\x1b[2J", "a\tb=no_adapt"])
def test_a_label_is_one_line_of_plain_text(spec: str) -> None:
    with pytest.raises(InputError, match="one line of plain text, found control characters"):
        parse_method(spec)


def test_a_folder_name_cannot_command_the_terminal() -> None:
    protocol = Protocol("x", "reset", (), "all", (0,), 4, "all")
    assert format_domain_name(DomainResult("fog\x1b[2J\n", {}), protocol) == r"fog\x1b[2J\n"


def test_long_names_that_differ_at_their_end_stay_different() -> None:
    names = [f"vit_base_patch16_224.augreg2_in21k_ft_in1k {precision}" for precision in ("fp32", "int8")]
    short = [shorten(name, 16) for name in names]
    assert [len(name) for name in short] == [16, 16]
    assert short[0] != short[1]
    assert short[0].endswith("fp32") and short[1].endswith("int8")
    assert shorten("short", 16) == "short"
