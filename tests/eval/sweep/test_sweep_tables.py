"""Tables of a sweep, and the methods that they compare."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fozo.eval.protocol import Protocol
from fozo.eval.results.bits import Bits
from fozo.eval.results.metrics import Tally
from fozo.eval.results.outcome import DomainResult, MethodResult, Run, Trace
from fozo.eval.results.results_file import MethodEntry
from fozo.eval.results.table import format_summary
from fozo.eval.sweep import sweep_table as table
from fozo.eval.sweep.cell import Cell
from fozo.eval.sweep.cell_results import CellResults
from fozo.eval.sweep.graph_results import GraphResults, Stream, choose_comparable, merge_cells
from sweep_doubles import CELL

# --- tables ---


def cell_results(cell: Cell, correct: int, lost: int = 0, **facts: Any) -> CellResults:
    """Return results with `correct` right images after `lost` wrong ones, at a confidence of 0.9."""
    tally = Tally(cell.images, correct, cell.images, nll=float(cell.images))
    tally.bin_images[13] = cell.images
    tally.bin_confidence[13] = 0.9 * cell.images
    tally.bin_correct[13] = correct
    right = Bits([lost <= index < lost + correct for index in range(cell.images)])
    result = MethodResult(tally, right, batches=5, forwards=10, seconds=2.0, peak_bytes=100_000_000)
    domain = DomainResult(
        cell.domain,
        {cell.label: result},
        cell.severity,
        images=cell.images,
        complete=True,
        ids_sha256="c" * 64,
    )
    return CellResults(
        Protocol("x", "reset", (), "all", (cell.seed,), 4, "all"),
        bundle={},
        engine={"workers": 1},
        methods={cell.label: MethodEntry(cell.method, 1, dict(cell.options))},
        runs=[Run(cell.seed, [domain], {cell.label: Trace([cell.images], [correct])}, complete=True)],
        cell=cell,
        **{"versions": {"onnxruntime": "1.99"}, "machine": {"model": "Fast, and cheap"}, **facts},
    )


@pytest.fixture
def finished() -> dict[Cell, CellResults]:
    """Two seeds of fog at two severities, rain, and clean; 10 images each."""
    right = {
        ("fog", 1): (9, 7),
        ("fog", 5): (5, 3),
        ("rain", 5): (1, 5),
        ("clean", None): (10, 10),
    }
    return {
        cell: cell_results(cell, values[index])
        for (name, severity), values in right.items()
        for index in (0, 1)
        for cell in [replace(CELL, label="m", domain=name, severity=severity, seed=index)]
    }


def test_averages_by_hand(finished: dict[Cell, CellResults]) -> None:
    (summary,) = table.summarize_graphs(merge_cells(list(finished), finished))
    assert summary.average is not None
    # Seeds: fog (.9 + .5) / 2 and (.7 + .3) / 2; rain .1 and .5; clean 1. The spread of .7 and .5 is .2 / √2.
    assert summary.domains["fog"].accuracy == pytest.approx(0.6)
    assert summary.domains["fog"].accuracy_std == pytest.approx(0.2 / np.sqrt(2))
    assert summary.domains["rain"].accuracy == pytest.approx(0.3)
    assert summary.domains["rain"].accuracy_std == pytest.approx(0.4 / np.sqrt(2))
    assert [summary.domains["clean"].get_value(name) for name in ("accuracy", "accuracy_std")] == [1.0, 0.0]
    # Without clean: (.9 + .5 + .1) / 3 = .5 and (.7 + .3 + .5) / 3 = .5.
    assert summary.average.accuracy == pytest.approx(0.5)
    assert summary.average.accuracy_std == pytest.approx(0, abs=1e-12)
    assert summary.average.ece == pytest.approx(np.mean([0, 0.4, 0.8, 0.2, 0.6, 0.4]))
    assert summary.average.forwards_per_batch == 2
    assert summary.average.images_per_second == pytest.approx(5)
    assert (summary.cells, summary.finished, summary.compared) == (8, 8, 8)
    assert summary.average.gain is None


def test_the_table_for_people(finished: dict[Cell, CellResults]) -> None:
    both = with_another(finished, "two words", {"fog": 1, "rain": 2})
    assert table.format_tables(merge_cells(list(both), both)).splitlines() == [
        "a model/ü fp32",
        "top-1 accuracy, %              m        two words  ",
        "fog                60.00 ± 14.14    70.00 ± 14.14*~",
        "rain               30.00 ± 28.28    50.00 ± 28.28*~",
        "clean              100.00 ± 0.00*   100.00 ± 0.00*~",
        "",
        *format_summary(
            [run for graph in merge_cells(list(both), both) for run in runs_of(graph)]
        ).splitlines(),
    ]


def test_tables_and_merged_results_have_the_notes_of_cells(finished: dict[Cell, CellResults]) -> None:
    for results in finished.values():
        if results.domain.name == "rain":
            results.domain.remarks["cmyk"] = 3
    graphs = merge_cells(list(finished), finished)
    assert table.format_tables(graphs).splitlines()[-1].startswith("Note: 3 images in rain 5 are in CMYK")
    domains = [domain for run in runs_of(graphs[0]) for domain in run.domains]
    assert [domain.remarks for domain in domains if domain.name == "rain"] == [{"cmyk": 3}] * 2


def runs_of(graph: GraphResults) -> list[Run]:
    assert graph.results is not None
    return graph.results.runs


def with_another(
    finished: dict[Cell, CellResults], label: str, gains: dict[str, int], lost: int = 0
) -> dict[Cell, CellResults]:
    """Beside a method another one, that has so many more images right in some domains."""
    other = {}
    for cell, results in finished.items():
        correct = results.method_result.tally.top1 + gains.get(cell.domain, 0)
        other[replace(cell, label=label)] = cell_results(replace(cell, label=label), correct, lost)
    return {**finished, **other}


def test_gains_are_paired_image_by_image(finished: dict[Cell, CellResults]) -> None:
    """In fog an image is gained and another lost, which accuracies do not show."""
    corrupted = {cell: results for cell, results in finished.items() if cell.domain != "clean"}
    both = with_another(corrupted, "b", {"rain": 2}, lost=1)
    (graph,) = merge_cells(list(both), both)
    first, second = runs_of(graph)
    gains = {
        (run.seed, domain.name, domain.severity): domain.count_gained_and_lost("b")
        for run in (first, second)
        for domain in run.domains
    }
    expected = {
        (seed, name, severity): (np.sum(there & ~here), np.sum(here & ~there))
        for cell, results in both.items()
        if cell.label == "m"
        for seed, name, severity in [(cell.seed, cell.domain, cell.severity)]
        for here in [results.method_result.right.array()]
        for there in [both[replace(cell, label="b")].method_result.right.array()]
    }
    assert gains == expected
    assert gains[0, "fog", 5] == (1, 1)
    assert gains[0, "rain", 5] == (3, 1)
    average = table.summarize_graphs([graph])[1].average
    assert average is not None
    assert average.gain == pytest.approx((0 + 0 + 0.2) / 3)
    assert average.gain_is_noise
    surer = with_another(finished, "b", {"fog": 1})
    (average,) = [
        item.average for item in table.summarize_graphs(merge_cells(list(surer), surer)) if item.method == "b"
    ]
    assert average is not None
    # Fog gains 0.1 of 10 images at both severities, rain nothing; the seeds have the same images and gains.
    one, none = np.sqrt((3 / 10 - 0.1**2) / 10), np.sqrt((2 / 10) / 10)
    assert average.gain == pytest.approx(0.2 / 3)
    assert average.gain_error == pytest.approx(np.sqrt((2 * one) ** 2 + none**2) / 3)


# --- what is compared when not all is finished ---


def streams(*numbers: int) -> set[Stream]:
    return {(number, "fog", 5) for number in numbers}


@pytest.mark.parametrize(
    ("finished_streams", "labels", "shared"),
    [
        ({"a": [1, 2, 3], "b": [1, 2, 3]}, "ab", [1, 2, 3]),
        ({"a": [1, 2, 3], "b": [1, 2]}, "ab", [1, 2]),  # as cells come to an end in turn
        ({"a": [1], "b": []}, "a", [1]),
        ({"a": [], "b": [1, 2]}, "b", [1, 2]),  # the first one always fails
        ({"a": [1, 2, 3, 4], "b": [1, 2, 3, 4], "c": [1]}, "ab", [1, 2, 3, 4]),  # c is new
        ({"a": [1, 2, 3, 4], "b": [1, 2, 3, 4], "c": [1, 2, 3]}, "abc", [1, 2, 3]),  # 9 cells and not 8
        ({"a": [1, 2], "b": [2, 3], "c": [4]}, "ab", [2]),  # 2 cells of a and b, as of a alone
        ({"a": [1], "b": [2]}, "a", [1]),
        ({"a": [], "b": []}, "", []),
        ({}, "", []),
    ],
)
def test_methods_are_compared_where_all_are_finished(
    finished_streams: dict[str, list[int]], labels: str, shared: list[int]
) -> None:
    choice = choose_comparable({label: streams(*numbers) for label, numbers in finished_streams.items()})
    assert choice == (list(labels), streams(*shared))


def test_a_missing_cell_takes_its_stream_from_the_others(finished: dict[Cell, CellResults]) -> None:
    both = with_another(finished, "b", {"rain": 2})
    cells = list(both)
    for cell in [cell for cell in cells if (cell.label, cell.domain, cell.seed) == ("b", "rain", 0)]:
        del both[cell]
    (graph,) = merge_cells(cells, both)
    assert graph.results is not None
    assert (graph.compared, graph.streams) == (7, 8)
    assert (graph.finished, graph.cells) == ({"m": 8, "b": 7}, {"m": 8, "b": 8})
    assert [(run.seed, run.complete, len(run.domains)) for run in runs_of(graph)] == [
        (0, False, 3),
        (1, True, 4),
    ]
    assert not graph.results.complete
    a, b = (item.average for item in table.summarize_graphs([graph]))
    assert a is not None and b is not None
    # Seed 1 alone, as without rain seed 0 has another mean: (.7 + .3 + .5) / 3, and with .7 for .5.
    assert (a.accuracy, a.accuracy_std) == (pytest.approx(0.5), None)
    assert b.accuracy == pytest.approx(1.7 / 3)
    assert b.gain == pytest.approx(0.2 / 3)
    note = "7 of 8 streams are finished with all of these methods; means are over 1 of 2 seeds"
    assert table.format_tables([graph]).splitlines()[1] == note

    for cell in [cell for cell in both if cell.label == "b" and (cell.domain, cell.severity) != ("fog", 1)]:
        del both[cell]
    (graph,) = merge_cells(cells, both)
    assert graph.labels == ["m"]
    assert "without b (2 of 8 cells)" in table.format_tables([graph])
    assert "~" not in table.format_tables([graph])
    left, out = table.summarize_graphs([graph])
    assert (left.compared, out.finished, out.compared, out.domains, out.average) == (8, 2, 0, {}, None)


def test_seeds_that_lack_different_domains_are_not_averaged(finished: dict[Cell, CellResults]) -> None:
    cells = list(finished)
    for name, severity, seed in (("fog", 1, 0), ("fog", 1, 1), ("rain", 5, 1)):
        del finished[next(c for c in cells if (c.domain, c.severity, c.seed) == (name, severity, seed))]
    (summary,) = table.summarize_graphs(merge_cells(cells, finished))
    assert summary.average is not None
    assert summary.average.accuracy == pytest.approx((0.5 + 0.1) / 2)  # of seed 0 alone
    assert summary.average.accuracy_std is None
    assert "5 of 8 streams are finished with all of these methods; no seed is whole" in table.format_tables(
        merge_cells(cells, finished)
    )
    (again,) = [run for run in runs_of(*merge_cells(cells, finished)) if run.seed == 1]
    assert [domain.name for domain in again.domains] == ["fog", "clean"]


def test_what_cells_do_not_agree_on_is_all_said(finished: dict[Cell, CellResults]) -> None:
    cell = next(iter(finished))
    finished[cell] = cell_results(
        cell, 9, versions={"onnxruntime": "2.0"}, machine={"model": "Slow", "int8_features": ["vnni", "amx"]}
    )
    (graph,) = merge_cells(list(finished), finished)
    assert graph.results is not None
    assert graph.results.versions == {"onnxruntime": "2.0; 1.99"}
    assert graph.results.machine == {"model": "Slow; Fast, and cheap", "int8_features": "vnni, amx; None"}
    assert graph.results.engine == {"workers": 1}
    assert graph.results.protocol.seeds == (0, 1)
    assert graph.results.protocol.severities == (1, 5)


def test_graphs_have_names_of_their_own(finished: dict[Cell, CellResults]) -> None:
    cells = [
        replace(cell, bundle=bundle * 64, model=model, precision=precision)
        for cell in finished
        for bundle, model, precision in (("b", "a/b", "fp32"), ("b", "a/b", "int8"), ("c", "a b", "fp32"))
    ]
    graphs = merge_cells(cells, {})
    assert [graph.name for graph in graphs] == ["a_b-fp32-bbbbbbbb", "a_b-int8-bbbbbbbb", "a_b-fp32-cccccccc"]
    assert all(graph.results is None for graph in graphs)
    assert table.format_tables(graphs) == ""
    assert table.summarize_graphs(graphs) == []


def test_the_table_for_machines(finished: dict[Cell, CellResults]) -> None:
    rows = list(csv.DictReader(io.StringIO(table.format_csv(finished))))
    assert len(rows) == 8
    assert rows[2] == {
        "model": "a model/ü",
        "bundle_sha256": "b" * 64,
        "precision": "fp32",
        "head": "",
        "method": "m",
        "domain": "fog",
        "severity": "5",
        "seed": "0",
        "accuracy": "0.5",
        "top5_accuracy": "1.0",
        "ece": "0.4",
        "nll": "1.0",
        "images": "10",
        "correct": "5",
        "batches": "5",
        "forwards": "10",
        "pull_backs": "0",
        "guarded": "0",
        "seconds": "2.0",
        "images_per_second": "5.0",
        "peak_bytes": "100000000",
        "onnxruntime": "1.99",
        "cpu": "Fast, and cheap",
        "file": f"{list(finished)[2].name}.json",
    }
    assert rows[-1]["severity"] == ""
    assert table.format_csv({}) == ""
