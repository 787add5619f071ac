"""Bundles whose writers are killed at every rename, sync and write: a whole one is always there."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bundle_doubles import BIAS, HEAD, graph, listing, make, manifest, statistics
from fozo.engine import files
from fozo.engine.bundle.bundle import MANIFEST, Bundle, NewGraph
from fozo.engine.bundle.create import create, folder_beside
from fozo.engine.bundle.manifest import GraphEntry
from fozo.engine.errors import OutputError
from fozo.engine.files import FOLDER_LOCK, hold_lock, to_npz
from kill_doubles import iterate_kills

NEW_HEAD = HEAD + 1
NEW_GRAPH = graph(tail="unused = Relu(m)")


def create_new(path: Path, *, overwrite: bool = True) -> Bundle:
    """Write another bundle than that of `make`, with gradients."""
    pull_back = GraphEntry("pull-back.onnx", 20, 0.1)
    return create(
        path,
        manifest(model="new", pull_backs={"fp32": pull_back}),
        {
            "model.onnx": lambda path: path.write_bytes(NEW_GRAPH),
            "head.npz": lambda path: path.write_bytes(to_npz(weight=NEW_HEAD, bias=BIAS)),
            "pull-back.onnx": lambda path: path.write_bytes(b"gradients"),
        },
        overwrite=overwrite,
    )


def read_whole(path: Path) -> Bundle:
    """Return a bundle after checking every file of it."""
    bundle = Bundle.open(path)
    for name in bundle.manifest.files:
        bundle.file(name)
    bundle.info("fp32")
    return bundle


def is_clean(folder: Path) -> bool:
    """Return true if a folder has nothing but whole bundles, a folder without an owner apart."""
    bundle = read_whole(folder / "bundle")
    rest = [entry for entry in folder.iterdir() if entry.name != "bundle"]
    rest += [bundle.path / name for name in set(listing(bundle)) - {*bundle.list_files()}]
    for entry in rest:  # killed between making it and locking it
        entry.rmdir()
    return len(rest) <= 1


@pytest.mark.parametrize("links", [True, False])
def test_export_overwrite_always_leaves_a_whole_bundle(
    links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not links:  # FAT has none
        monkeypatch.setattr(os, "link", lambda *paths: (_ for _ in ()).throw(OSError(1, "not permitted")))
    path = tmp_path / "bundle"

    def prepare() -> None:
        shutil.rmtree(path, ignore_errors=True)
        make(tmp_path).with_source("fp32", statistics(), "old")

    seen = []
    for step in iterate_kills(prepare, lambda: create_new(path)):
        bundle = read_whole(path)
        weight = bundle.info("fp32").head_weight
        np.testing.assert_array_equal(weight, NEW_HEAD if bundle.manifest.model == "new" else HEAD)
        assert (bundle.source("fp32") is None) == (bundle.manifest.model == "new"), step
        seen.append(bundle.manifest.model)
        renewed = create_new(path)  # nothing is in the way of the next export
        assert sorted(renewed.manifest.files) == ["head.npz", "model.onnx", "pull-back.onnx"]
        assert is_clean(tmp_path), step
    assert seen == sorted(seen, reverse=True) or seen == sorted(seen)
    assert set(seen) == {"colours", "new"}


@pytest.mark.parametrize("exists", [True, False])
def test_a_killed_first_export_is_not_in_the_way(exists: bool, tmp_path: Path) -> None:
    path = tmp_path / "bundle"

    def prepare() -> None:
        shutil.rmtree(path, ignore_errors=True)
        if exists:  # a volume mounted there, perhaps
            path.mkdir()

    for step in iterate_kills(prepare, lambda: create_new(path)):
        if (path / MANIFEST).exists():
            read_whole(path)
        create_new(path)
        assert is_clean(tmp_path), step


def test_killed_additions_leave_the_bundle_whole(tmp_path: Path) -> None:
    path = tmp_path / "bundle"

    def prepare() -> None:
        shutil.rmtree(path, ignore_errors=True)
        make(tmp_path)

    def add() -> None:
        with folder_beside(path / "int8") as folder:
            with (folder / "new.onnx").open("wb") as stream:
                stream.write(NEW_GRAPH)
            new = NewGraph(folder / "new.onnx", GraphEntry("", 20, 0.5, "fp32"))
            changed = Bundle.open(path).with_graphs({"int8": new})
            changed.with_source("int8", statistics(), "new")

    for step in iterate_kills(prepare, add):
        bundle = read_whole(path)
        if "int8" in bundle.manifest.graphs:
            bundle.info("int8")
        add()
        assert read_whole(path).info("int8").source is not None
        create_new(path)
        assert is_clean(tmp_path), step


def test_a_bundle_under_a_symbolic_link_is_replaced_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    make(tmp_path / "disk")
    link = tmp_path / "bundle"
    link.symlink_to(tmp_path / "disk" / "bundle")
    create_new(link)
    assert link.is_symlink()
    assert read_whole(tmp_path / "disk" / "bundle").manifest.model == "new"
    link.unlink()
    link.symlink_to(tmp_path / "disk" / "later")  # of a folder that does not exist yet
    create_new(link)
    assert read_whole(tmp_path / "disk" / "later").manifest.model == "new"


def test_two_writers_of_a_bundle_do_not_mix(tmp_path: Path) -> None:
    bundle = make(tmp_path)
    new = tmp_path / "new.onnx"
    new.write_bytes(NEW_GRAPH)
    with hold_lock(bundle.path / FOLDER_LOCK, "busy"):
        for change in (
            lambda: create_new(bundle.path),
            lambda: bundle.with_source("fp32", statistics(), "mine"),
            lambda: bundle.with_graphs({"int8": NewGraph(new, GraphEntry("", 20, 0.5))}),
            lambda: bundle.with_graphs({}, {"fp32": NewGraph(new, GraphEntry("", 20, 0.5))}),
        ):
            with pytest.raises(OutputError, match="is being written by another process; wait"):
                change()
    assert listing(bundle) == sorted(bundle.list_files())
    assert new.exists()


def test_the_folder_of_a_running_export_is_not_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bundle"
    with folder_beside(path) as first, folder_beside(path) as second:
        assert first.is_dir() and second.is_dir()
    (tmp_path / ".bundle.abcdefgh.tmp" / "bundle").mkdir(parents=True)  # without lock: whose?
    with folder_beside(path):
        assert (tmp_path / ".bundle.abcdefgh.tmp").is_dir()
    (tmp_path / ".bundle.empty000.tmp").mkdir()
    os.utime(tmp_path / ".bundle.empty000.tmp", (0, 0))
    with folder_beside(path):
        assert not (tmp_path / ".bundle.empty000.tmp").exists()
    (tmp_path / ".bundle.abcdefgh.tmp" / FOLDER_LOCK).touch()

    @contextlib.contextmanager
    def no_locks(path: Path, busy: str) -> Iterator[None]:
        yield

    with monkeypatch.context() as patch:
        patch.setattr(files, "hold_lock", no_locks)  # then nobody knows whose it is
        with folder_beside(path):
            assert (tmp_path / ".bundle.abcdefgh.tmp").is_dir()
    with folder_beside(path):
        assert not (tmp_path / ".bundle.abcdefgh.tmp").exists()


def test_the_name_of_the_head_is_listed(tmp_path: Path) -> None:
    bundle = make(tmp_path)
    changed = replace(bundle.manifest, head="other.npz")
    with pytest.raises(Exception, match=r"files: expected an entry for other\.npz"):
        type(changed).from_json(changed.to_json(), tmp_path)
