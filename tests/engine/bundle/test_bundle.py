"""Bundles on disk: source statistics that belong to one graph, further graphs, identity."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundle_doubles import edit, graph, listing, make, replace_file, statistics
from fozo.engine import files
from fozo.engine.bundle import bundle as bundles
from fozo.engine.bundle.bundle import Bundle, NewGraph
from fozo.engine.bundle.create import folder_beside
from fozo.engine.bundle.manifest import GraphEntry
from fozo.engine.errors import BundleError, OutputError
from fozo.engine.files import to_npz
from fozo.engine.model import SourceStatistics
from fozo.engine.runtime.network import Network

# --- source statistics ---


def test_source_statistics_are_stored_and_replaced(tmp_path: Path) -> None:
    plain = make(tmp_path)
    assert plain.info("fp32").source is None
    first = plain.with_source("fp32", statistics(0), "first")
    found = first.info("fp32").source
    assert found is not None
    np.testing.assert_array_equal(found.mean, statistics(0).mean)
    np.testing.assert_array_equal(found.std, statistics(0).std)
    assert found.images == 64
    identity = first.info("fp32").identity
    second = first.with_source("fp32", statistics(1), "second")
    found = second.info("fp32").source
    assert found is not None
    np.testing.assert_array_equal(found.mean, statistics(1).mean)
    assert listing(second) == sorted(["bundle.json", *second.manifest.files])
    assert len([name for name in listing(second) if name.startswith("source")]) == 1
    assert second.info("fp32").identity != identity
    same = second.with_source("fp32", statistics(1), "second")
    assert same == second
    assert same.info("fp32").source is not None


def test_source_of_another_graph_is_never_used(tmp_path: Path) -> None:
    bundle = make(tmp_path).with_source("fp32", statistics(), "tests")
    edit(bundle, lambda raw: raw["source"]["fp32"].update(graph_sha256="0" * 64))
    changed = Bundle.open(bundle.path)
    for use in (changed.source, changed.info, lambda precision: Network.open(changed, precision)):
        with pytest.raises(BundleError, match="another graph"):
            use("fp32")


@pytest.mark.parametrize(
    "content",
    [
        to_npz(mean=np.zeros((2, 3), np.float32)),
        to_npz(mean=np.zeros((3, 2), np.float32), std=np.ones((2, 3), np.float32)),
        to_npz(mean=np.zeros((2, 3), np.float32), std=np.full((2, 3), np.nan, np.float32)),
    ],
)
def test_damaged_source(content: bytes, tmp_path: Path) -> None:
    bundle = make(tmp_path).with_source("fp32", statistics(), "tests")
    name = bundle.manifest.source["fp32"].file
    replace_file(bundle, name, content)
    with pytest.raises(BundleError, match="source-fp32"):
        Network.open(bundle.path, workers=1)


def test_a_failed_write_leaves_the_old_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = make(tmp_path).with_source("fp32", statistics(0), "old")
    write = files.write_atomic

    def failing(path: Path, content: bytes) -> None:
        if path.name == "bundle.json":
            raise OutputError("no space left")
        write(path, content)

    monkeypatch.setattr(bundles, "write_atomic", failing)
    with pytest.raises(OutputError):
        old.with_source("fp32", statistics(1), "new")
    monkeypatch.undo()
    again = Bundle.open(old.path)
    assert again == old
    found = again.info("fp32").source
    assert found is not None
    np.testing.assert_array_equal(found.mean, statistics(0).mean)
    renewed = again.with_source("fp32", statistics(1), "new")  # and it works the next time
    assert renewed.manifest.source["fp32"].origin == "new"
    assert listing(renewed) == sorted(["bundle.json", *renewed.manifest.files])


@pytest.mark.parametrize("name", ["../victim.txt", "model.onnx", "head.npz", "bundle.json"])
def test_replacing_source_statistics_deletes_only_source_statistics(name: str, tmp_path: Path) -> None:
    bundle = make(tmp_path).with_source("fp32", statistics(0), "old")
    (tmp_path / "victim.txt").write_text("precious")
    edit(bundle, lambda raw: raw["source"]["fp32"].update(file=name))
    try:
        renewed = Bundle.open(bundle.path).with_source("fp32", statistics(1), "new")
    except BundleError:
        pass
    else:
        Network.open(renewed, workers=1).close()
    assert (tmp_path / "victim.txt").exists()
    assert (bundle.path / "bundle.json").exists()
    assert (bundle.path / "model.onnx").exists()
    assert (bundle.path / "head.npz").exists()


# --- further graphs ---


def add(bundle: Bundle, content: bytes, precision: str = "int8", **fields: Any) -> Bundle:
    """Add a graph as `fozo quantize` does."""
    with folder_beside(bundle.path) as folder:
        (folder / "new.onnx").write_bytes(content)
        entry = replace(GraphEntry("", 20, 0.5, "fp32"), **fields)
        changed = bundle.with_graphs({precision: NewGraph(folder / "new.onnx", entry)})
        assert not list(folder.iterdir())  # moved, not copied
    return changed


OTHER = graph(tail="unused = Relu(m)")


def test_a_graph_is_added_under_its_hash(tmp_path: Path) -> None:
    plain = make(tmp_path).with_source("fp32", statistics(), "tests")
    record = {"weights": "int8", "list": [1, 2.5, None], "nested": {"ü": True}}
    changed = add(plain, OTHER, record=record)
    assert Bundle.open(plain.path) == changed
    digest = hashlib.sha256(OTHER).hexdigest()
    entry = GraphEntry(f"model-int8-{digest[:8]}.onnx", 20, 0.5, "fp32", record)
    assert changed.manifest.graphs == {**plain.manifest.graphs, "int8": entry}
    assert changed.graph("int8").read_bytes() == OTHER
    assert changed.graph_sha256("int8") == digest
    assert changed.manifest.source == plain.manifest.source
    assert changed.info("int8").source is None
    assert changed.info("fp32") is not None and changed.info("fp32").identity == plain.info("fp32").identity
    assert changed.info("int8").identity != changed.info("fp32").identity
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 3), dtype=np.uint8)
    with Network.open(changed, "int8", workers=1) as ours, Network.open(changed, workers=1) as theirs:
        assert ours(images).logits.tobytes() == theirs(images).logits.tobytes()
    assert listing(changed) == sorted(["bundle.json", *changed.manifest.files])


def test_a_replaced_graph_takes_its_source_statistics_along(tmp_path: Path) -> None:
    bundle = add(make(tmp_path).with_source("fp32", statistics(0), "a"), OTHER)
    bundle = add(bundle, graph(), "w6a6").with_source("int8", statistics(1), "b")
    bundle = bundle.with_source("w6a6", statistics(2), "c")
    old = {bundle.manifest.graphs["int8"].file, bundle.manifest.source["int8"].file}
    (bundle.path / "notes.txt").write_text("mine")
    (bundle.path / "model-int8-00000000.onnx").write_bytes(b"mine")
    renewed = add(bundle, graph(tail="unused = Abs(m)"))
    assert list(renewed.manifest.graphs) == ["fp32", "int8", "w6a6"]
    assert list(renewed.manifest.source) == ["fp32", "w6a6"]
    assert not old & set(renewed.manifest.files)
    expected = ["bundle.json", "notes.txt", "model-int8-00000000.onnx", *renewed.manifest.files]
    assert listing(renewed) == sorted(expected)
    for name in renewed.manifest.files:
        renewed.file(name)
    same = add(renewed, renewed.graph("int8").read_bytes())
    assert same == renewed
    assert same.graph("int8").exists()


def test_a_replaced_graph_takes_its_portable_form_along(tmp_path: Path) -> None:
    bundle = add(add(make(tmp_path), OTHER), graph(), "int8-qdq")
    for number, precision in enumerate(("fp32", "int8", "int8-qdq")):
        bundle = bundle.with_source(precision, statistics(number), "a")
    form = add(bundle, graph(tail="unused = Abs(m)"), "int8-qdq")  # alone: the graph itself stays
    assert list(form.manifest.graphs) == ["fp32", "int8", "int8-qdq"]
    assert list(form.manifest.source) == ["fp32", "int8"]
    renewed = add(form.with_source("int8-qdq", statistics(3), "b"), graph(tail="unused = Neg(m)"))
    assert list(renewed.manifest.graphs) == ["fp32", "int8"]
    assert list(renewed.manifest.source) == ["fp32"]
    assert listing(renewed) == sorted(["bundle.json", *renewed.manifest.files])


@pytest.mark.parametrize("failing", ["second graph", "pull-back", "manifest"])
def test_several_graphs_are_added_together_or_not_at_all(
    failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = add(make(tmp_path), OTHER).with_source("int8", statistics(), "old")
    before = {name: (old.path / name).read_bytes() for name in listing(old)}
    entry = GraphEntry("", 20, 0.5, "fp32")
    failures = {"second graph": "model-int8-qdq", "pull-back": "pull-back-int8", "manifest": "bundle.json"}
    move = Path.replace

    def replace_or_fail(self: Path, target: Path) -> Path:
        if target.name.startswith(failures[failing]):
            raise OSError(28, "No space left")
        return move(self, target)

    def add_all(bundle: Bundle) -> Bundle:
        with folder_beside(bundle.path) as folder:
            paths = [folder / name for name in ("a", "b", "c")]
            for path, tail in zip(
                paths, ("unused = Abs(m)", "unused = Neg(m)", "unused = Exp(m)"), strict=True
            ):
                path.write_bytes(graph(tail=tail))
            new = [NewGraph(path, entry) for path in paths]
            return bundle.with_graphs({"int8": new[0], "int8-qdq": new[1]}, {"int8": new[2]})

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace_or_fail)
        with pytest.raises(OutputError, match="No space left"):
            add_all(old)
    assert {name: (old.path / name).read_bytes() for name in listing(old)} == before
    changed = add_all(Bundle.open(old.path))
    assert list(changed.manifest.graphs) == ["fp32", "int8", "int8-qdq"]
    assert list(changed.manifest.pull_backs) == ["int8"]
    assert not changed.manifest.source
    assert listing(changed) == sorted(["bundle.json", *changed.manifest.files])


@pytest.mark.parametrize("name", ["../victim.txt", "model.onnx", "head.npz", "bundle.json", "mine.onnx"])
def test_replacing_a_graph_deletes_only_what_was_added(name: str, tmp_path: Path) -> None:
    bundle = add(make(tmp_path), OTHER)
    (tmp_path / "victim.txt").write_text("precious")
    (bundle.path / "mine.onnx").write_bytes(OTHER)
    entry = {"sha256": "0" * 64, "bytes": 1}
    edit(bundle, lambda raw: raw["files"].setdefault(name, entry))
    edit(bundle, lambda raw: raw["graphs"]["int8"].update(file=name))
    add(Bundle.open(bundle.path), graph())
    assert (tmp_path / "victim.txt").exists()
    for kept in ("model.onnx", "head.npz", "bundle.json", "mine.onnx"):
        assert (bundle.path / kept).exists()
    with Network.open(bundle.path, workers=1):
        pass


def test_a_bundle_changed_by_another_process_is_not_overwritten(tmp_path: Path) -> None:
    ours = make(tmp_path)
    theirs = ours.with_source("fp32", statistics(), "another process")
    graph = tmp_path / "graph.onnx"
    graph.write_bytes(b"another graph")
    changes: tuple[Callable[[], object], ...] = (
        lambda: ours.with_graphs({"int8": NewGraph(graph, GraphEntry("", 20, 0.1))}),
        lambda: ours.with_source("fp32", SourceStatistics(statistics().mean + 1, statistics().std, 50), "x"),
    )
    for change in changes:
        with pytest.raises(OutputError, match="changed by another process"):
            change()
    assert Bundle.open(ours.path).manifest == theirs.manifest
    assert {path.name for path in ours.path.iterdir()} == {*theirs.manifest.files, "bundle.json"}


@pytest.mark.parametrize(
    "name", ["fp32", "", "INT8", "int 8", "int8-", "-int8", "../int8", "a/b", "int8\n", "int--8", "ß"]
)
def test_names_that_no_further_graph_has(name: str, tmp_path: Path) -> None:
    bundle = make(tmp_path)
    new = tmp_path / "new.onnx"
    new.write_bytes(OTHER)
    with pytest.raises(BundleError, match="further graph, like int8"):
        bundle.with_graphs({name: NewGraph(new, GraphEntry("", 20, 0.5))})
    assert new.exists()
    assert listing(bundle) == sorted(["bundle.json", *bundle.manifest.files])
    assert Bundle.open(bundle.path) == bundle


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        (GraphEntry("", 20, float("inf"), "fp32"), "number"),
        (GraphEntry("", 20, float("nan"), "fp32"), "number"),
        (GraphEntry("", 20, 0.5, "fp32", {"calibration": "a\tb"}), r"control characters in 'a\\tb'"),
        (GraphEntry("", 20, 0.5, "fp32", {"calibration": "caf\udce9"}), "surrogates"),
    ],
)
def test_a_manifest_that_could_not_be_read_again_is_not_written(
    entry: GraphEntry, problem: str, tmp_path: Path
) -> None:
    old = add(make(tmp_path), OTHER).with_source("int8", statistics(), "old")
    before = {name: (old.path / name).read_bytes() for name in listing(old)}
    with folder_beside(old.path) as folder:
        (folder / "new.onnx").write_bytes(graph())
        with pytest.raises(BundleError, match=problem) as caught:
            old.with_graphs({"int8": NewGraph(folder / "new.onnx", entry)})
    assert "nothing was changed" in str(caught.value)
    with pytest.raises(BundleError, match=r"nothing was changed.*control characters"):
        old.with_source("int8", statistics(1), "images in a\nb")
    assert {name: (old.path / name).read_bytes() for name in listing(old)} == before
    assert Bundle.open(old.path) == old


@pytest.mark.parametrize("step", ["graph", "manifest"])
def test_a_graph_that_cannot_be_written_changes_nothing(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = add(make(tmp_path), OTHER).with_source("int8", statistics(), "old")
    before = {name: (old.path / name).read_bytes() for name in listing(old)}

    def failing(*arguments: Any) -> None:
        raise OutputError("No space left") if step == "manifest" else OSError(28, "No space left")

    with monkeypatch.context() as patch:
        patch.setattr(*((bundles, "write_atomic") if step == "manifest" else (Path, "replace")), failing)
        with pytest.raises(OutputError, match="No space left"):
            add(old, graph())
    assert {name: (old.path / name).read_bytes() for name in before} == before
    again = Bundle.open(old.path)
    assert again == old
    assert again.info("int8").source is not None
    renewed = add(again, graph())  # and it works the next time
    assert listing(renewed) == sorted(["bundle.json", *renewed.manifest.files])


@pytest.mark.parametrize(
    "fields",
    [
        {"record": None},
        {"record": []},
        {"record": "text"},
        {"reference": None},
        {"reference": 3},
        {"opset": "20"},
        {"max_abs_difference": "small"},
        {"surprise": 1},
    ],
)
def test_further_graphs_of_the_wrong_kind(fields: dict[str, Any], tmp_path: Path) -> None:
    bundle = add(make(tmp_path), OTHER)
    edit(bundle, lambda raw: raw["graphs"]["int8"].update(fields))
    with pytest.raises(BundleError, match=r"bundle\.json: \S+: .*(expected|must be) .*, found "):
        Bundle.open(bundle.path)


def test_graphs_without_reference_and_record_were_made_from_pytorch(tmp_path: Path) -> None:
    bundle = make(tmp_path)
    for name in ("reference", "record"):
        edit(bundle, lambda raw, name=name: raw["graphs"]["fp32"].pop(name))  # type: ignore[misc]
    assert Bundle.open(bundle.path).manifest.graphs["fp32"] == GraphEntry("model.onnx", 20, 1e-6, "PyTorch")


# --- what a checkpoint belongs to ---


def test_identity_is_what_shapes_the_outputs(tmp_path: Path) -> None:
    bundle = make(tmp_path)
    plain = bundle.info("fp32").identity
    edit(bundle, lambda raw: raw["provenance"].update(note="moved to another disk"))
    assert Bundle.open(bundle.path).info("fp32").identity == plain
    with_source = Bundle.open(bundle.path).with_source("fp32", statistics(0), "a")
    first = with_source.info("fp32").identity
    assert first != plain
    again = with_source.with_source("fp32", statistics(1), "b")
    assert again.info("fp32").identity != first
    selected = again.info("fp32").select([0, 2])
    assert selected.identity not in (again.info("fp32").identity, again.info("fp32").select([2, 0]).identity)
    assert len(selected.identity) == 64
