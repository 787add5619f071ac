"""Bundles on disk: round trips, damage of every kind, source statistics that belong to one graph."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fozo.engine import files
from fozo.engine.bundle import bundle as bundles
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.bundle.create import create, folder_beside
from fozo.engine.bundle.manifest import GraphEntry, Manifest
from fozo.engine.bundle.preprocessing import Preprocessing
from fozo.engine.errors import BundleError, InputError, OutputError
from fozo.engine.files import to_npz
from fozo.engine.model import FloatArray, ImageArray, ModelInfo, Outputs, SourceStatistics
from fozo.engine.runtime.network import Network
from fozo.engine.statistics.moments import source_statistics

onnx = pytest.importorskip("onnx", reason="small graphs are written with onnx")

HEAD = (np.arange(15).reshape(5, 3) / 10).astype(np.float32)
BIAS = np.zeros(5, np.float32)


def graph(
    images: str = "uint8[N,4,4,3] images",
    prompts: str = "float[R,P,3] prompts",
    outputs: str = "float[N,5] logits, float[N,2,3] features",
    axes: str = "1,2",
    tail: str = "",
) -> bytes:
    """A valid graph of the contract: both features are the mean colour, the head is `HEAD`."""
    values = ",".join(map(str, HEAD.T.ravel()))
    text = f"""<ir_version: 9, opset_import: ["" : 20]>
    g ({images}, {prompts}) => ({outputs})
    <float[3,5] w = {{{values}}}, int64[2] axes = {{{axes}}}, int64[1] one = {{1}}>
    {{
        x = Cast<to=1>({images.split()[-1]})
        m = ReduceMean<keepdims=0>(x, axes)
        f = Unsqueeze(m, one)
        features = Concat<axis=1>(f, f)
        logits = MatMul(m, w)
        {tail}
    }}"""
    content: bytes = onnx.parser.parse_model(text).SerializeToString()
    return content


def manifest(**changes: Any) -> Manifest:
    plain = Manifest(
        model="colours",
        preprocessing=Preprocessing((4, 4), 5, "bilinear"),
        layers=2,
        width=3,
        tokens=17,
        feature_width=3,
        classes=5,
        prompt_bound=0.1,
        tunables={"prompts": ("R", "P", 3)},
        class_ids=("a", "b", "c", "d", "e"),
        class_names=("eins", "zwei", "drei", "vier", "fünf"),
        graphs={"fp32": GraphEntry("model.onnx", 20, 1e-6)},
        provenance={"weights": "none", "mean": [0.5, 0.5, 0.5]},
    )
    return replace(plain, **changes)


def make(folder: Path, content: bytes | None = None, head: bytes | None = None, **changes: Any) -> Bundle:
    content = graph() if content is None else content
    head = to_npz(weight=HEAD, bias=BIAS) if head is None else head
    return create(
        folder / "bundle",
        manifest(**changes),
        {
            "model.onnx": lambda path: path.write_bytes(content),
            "head.npz": lambda path: path.write_bytes(head),
        },
    )


def edit(bundle: Bundle, change: Callable[[dict[str, Any]], object]) -> None:
    path = bundle.path / "bundle.json"
    raw = json.loads(path.read_bytes())
    change(raw)
    path.write_text(json.dumps(raw))


def replace_file(bundle: Bundle, name: str, content: bytes) -> None:
    """Changes a file and its entry in the manifest, as one who wants to do harm would."""
    (bundle.path / name).write_bytes(content)
    entry = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    edit(bundle, lambda raw: raw["files"].update({name: entry}))


def statistics(seed: int = 0) -> SourceStatistics:
    generator = np.random.default_rng(seed)
    mean, std = (generator.random((2, 3)).astype(np.float32) for _ in range(2))
    return SourceStatistics(mean, std, 64)


def listing(bundle: Bundle) -> list[str]:
    return sorted(path.name for path in bundle.path.iterdir())


# --- the manifest ---


def test_manifest_round_trip(tmp_path: Path) -> None:
    bundle = make(tmp_path)
    again = Bundle.open(bundle.path)
    assert again == bundle
    assert again.manifest == replace(manifest(), files=bundle.manifest.files)
    assert Manifest.from_json(bundle.manifest.to_json(), Path("x")) == bundle.manifest
    assert bundle.manifest.to_json() == (bundle.path / "bundle.json").read_bytes()
    assert bundle.sha256 == hashlib.sha256((bundle.path / "bundle.json").read_bytes()).hexdigest()


def test_manifest_without_classes_and_with_source(tmp_path: Path) -> None:
    bundle = make(tmp_path, class_ids=None, class_names=None).with_source("fp32", statistics(), "tests")
    assert Bundle.open(bundle.path) == bundle
    assert bundle.manifest.class_ids is None
    assert bundle.manifest.source["fp32"].origin == "tests"


def test_a_good_bundle_runs(tmp_path: Path) -> None:
    bundle = make(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 3), dtype=np.uint8)
    with Network.open(bundle.path, workers=1) as network:
        outputs = network(images)
    expected = images.astype(np.float64).mean((1, 2))
    np.testing.assert_allclose(outputs.features[:, 1], expected, rtol=1e-6)
    np.testing.assert_allclose(outputs.logits, expected @ HEAD.T, rtol=1e-5)


@pytest.mark.parametrize("kind", ["nothing", "empty folder", "a file", "manifest is a folder"])
def test_no_bundle(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    if kind == "a file":
        path.write_text("{}")
    elif kind == "empty folder":
        path.mkdir()
    elif kind == "manifest is a folder":
        (path / "bundle.json").mkdir(parents=True)
    with pytest.raises(BundleError, match=r"no bundle at .*fozo export"):
        Bundle.open(path)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"3", b'"bundle"', b"\xff\xfe", b"{}", b"[" * 100_000]
)
def test_manifest_that_is_none(content: bytes, tmp_path: Path) -> None:
    bundle = make(tmp_path)
    (bundle.path / "bundle.json").write_bytes(content)
    with pytest.raises(BundleError, match="not a bundle manifest"):
        Bundle.open(bundle.path)


def test_manifest_of_schema_1_has_no_norms_to_tune(tmp_path: Path) -> None:
    bundle = make(tmp_path)

    def age(raw: dict[str, Any]) -> None:
        raw["schema"] = 1
        del raw["norms"]

    edit(bundle, age)
    info = Bundle.open(bundle.path).info("fp32")
    assert (info.tunables, info.norms) == (("prompts",), {})
    with pytest.raises(BundleError, match=r"zoa tunes norms, and the graph of colours .*only: prompts"):
        info.require_tunable("norms", "zoa")
    with Network.open(bundle.path, workers=1) as network:
        assert network(np.zeros((1, 4, 4, 3), np.uint8)).embedding is None


@pytest.mark.parametrize("schema", [0, 3, 999, "1", None])
def test_manifest_of_another_schema(schema: object, tmp_path: Path) -> None:
    bundle = make(tmp_path)
    edit(bundle, lambda raw: raw.update(schema=schema))
    with pytest.raises(BundleError, match=f"schema {schema}"):
        Bundle.open(bundle.path)


FIELDS = sorted(set(json.loads(manifest().to_json())) - {"schema"})


@pytest.mark.parametrize("field", FIELDS)
def test_manifest_without_a_field(field: str, tmp_path: Path) -> None:
    bundle = make(tmp_path)
    edit(bundle, lambda raw: raw.pop(field))
    with pytest.raises(BundleError, match=field):
        Bundle.open(bundle.path)


WRONG: list[tuple[str, object]] = [
    ("preprocessing", None),
    ("preprocessing", []),
    ("preprocessing", {"size": 4, "resize": 4}),
    ("preprocessing", {"size": [4, 4, 4], "resize": 4}),
    ("preprocessing", {"size": [4, 4], "resize": 4, "surprise": 1}),
    ("preprocessing", {"size": [4, 4]}),
    ("layers", "many"),
    ("layers", None),
    ("layers", [2]),
    ("layers", float("inf")),
    ("width", {}),
    ("tokens", "x"),
    ("classes", None),
    ("classes", 4),
    ("prompt_bound", "wide"),
    ("class_ids", 5),
    ("class_ids", ["a"]),
    ("class_names", ["a", "b", "c", "d"]),
    ("graphs", None),
    ("graphs", []),
    ("graphs", "model.onnx"),
    ("graphs", {"fp32": "model.onnx"}),
    ("graphs", {"fp32": {"file": "model.onnx"}}),
    ("source", []),
    ("source", {"fp32": {"file": "x"}}),
    ("files", []),
    ("files", {"model.onnx": 5}),
    ("files", {"model.onnx": {"sha256": "00"}}),
    ("provenance", 5),
    ("provenance", "text"),
]


@pytest.mark.parametrize(("field", "value"), WRONG)
def test_manifest_with_a_field_of_the_wrong_type(field: str, value: object, tmp_path: Path) -> None:
    bundle = make(tmp_path)
    edit(bundle, lambda raw: raw.update({field: value}))
    with pytest.raises(BundleError):
        Bundle.open(bundle.path)


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw["files"]["model.onnx"].update(sha256=5),
        lambda raw: raw["files"]["model.onnx"].update(sha256=None),
        lambda raw: raw["files"]["model.onnx"].update(bytes="many"),
        lambda raw: raw["graphs"]["fp32"].update(file=5),
        lambda raw: raw["graphs"]["fp32"].update(file=None),
        lambda raw: raw["graphs"]["fp32"].update(file=""),
        lambda raw: raw["graphs"]["fp32"].update(file="other.onnx"),
        lambda raw: raw["files"].pop("head.npz"),
        lambda raw: raw.update(graphs={}),
    ],
)
def test_entries_of_the_wrong_kind(change: Callable[[dict[str, Any]], object], tmp_path: Path) -> None:
    bundle = make(tmp_path)
    edit(bundle, change)
    with pytest.raises(BundleError):
        Network.open(bundle.path, workers=1)


# --- files ---


@pytest.mark.parametrize("name", ["model.onnx", "head.npz"])
@pytest.mark.parametrize("damage", ["truncated", "emptied", "longer", "one bit", "missing", "a folder"])
def test_damaged_files(name: str, damage: str, tmp_path: Path) -> None:
    bundle = make(tmp_path)
    path = bundle.path / name
    content = path.read_bytes()
    path.unlink()
    if damage == "one bit":
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    elif damage == "a folder":
        path.mkdir()
    elif damage != "missing":
        path.write_bytes({"truncated": content[:-9], "emptied": b"", "longer": content + b"\0"}[damage])
    with pytest.raises(BundleError, match=name):
        Network.open(bundle.path, workers=1)


def test_swapped_files(tmp_path: Path) -> None:
    bundle = make(tmp_path)
    (bundle.path / "model.onnx").replace(bundle.path / "x")
    (bundle.path / "head.npz").replace(bundle.path / "model.onnx")
    (bundle.path / "x").replace(bundle.path / "head.npz")
    for name in ("model.onnx", "head.npz"):
        with pytest.raises(BundleError, match=r"not the file that was exported"):
            bundle.file(name)


@pytest.mark.parametrize("name", ["../secret", "sub/secret", "..", ".", "", "/etc/hostname", "sub/../secret"])
def test_files_outside_the_folder_are_not_read(name: str, tmp_path: Path) -> None:
    bundle = make(tmp_path)
    (bundle.path / "sub").mkdir()
    content = graph()
    for place in (tmp_path / "secret", bundle.path / "sub" / "secret", bundle.path / "secret"):
        place.write_bytes(content)
    entry = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    edit(bundle, lambda raw: raw["files"].update({name: entry}))
    edit(bundle, lambda raw: raw["graphs"]["fp32"].update(file=name))
    with pytest.raises(BundleError):
        Network.open(bundle.path, workers=1)


def test_unlisted_file(tmp_path: Path) -> None:
    bundle = make(tmp_path)
    (bundle.path / "extra.npz").write_bytes(b"x")
    with pytest.raises(BundleError, match="lists no file"):
        bundle.file("extra.npz")


def test_unknown_precision(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="has no int8 graph, it has: fp32"):
        Network.open(make(tmp_path), "int8")


def saved(array: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


def saved_npz(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("raise SystemExit('code was run')",)


BAD_HEADS: dict[str, bytes] = {
    "transposed": to_npz(weight=HEAD.T, bias=BIAS),
    "too few classes": to_npz(weight=HEAD[:4], bias=BIAS),
    "float64": to_npz(weight=HEAD.astype(np.float64), bias=BIAS),
    "nan": to_npz(weight=np.where(HEAD == 0, np.nan, HEAD).astype(np.float32), bias=BIAS),
    "inf": to_npz(weight=np.where(HEAD == 0, np.inf, HEAD).astype(np.float32), bias=BIAS),
    "no weight": to_npz(bias=BIAS),
    "objects": saved_npz(weight=np.array([Evil()], dtype=object), bias=BIAS),
    "pickle": pickle.dumps(Evil()),
    "npy": saved(HEAD),
    "empty": b"",
    "text": b"no archive",
    "truncated": to_npz(weight=HEAD, bias=BIAS)[:-30],
    "integers": to_npz(weight=HEAD.astype(np.int64), bias=BIAS),
}


@pytest.mark.parametrize("kind", BAD_HEADS)
def test_bad_head(kind: str, tmp_path: Path) -> None:
    bundle = make(tmp_path)
    replace_file(bundle, "head.npz", BAD_HEADS[kind])
    with pytest.raises(BundleError, match=r"head\.npz"):
        Network.open(bundle.path, workers=1)


BAD_GRAPHS: dict[str, Callable[[], bytes]] = {
    "image name": lambda: graph(images="uint8[N,4,4,3] pixels"),
    "image type": lambda: graph(images="float[N,4,4,3] images"),
    "image rank 2": lambda: graph(images="uint8[N,48] images", axes="1,1"),
    "image rank 5": lambda: graph(
        images="uint8[N,4,4,3,3] images", outputs="float[N,5] logits, float[N,2,3] features", axes="1,2"
    ),
    "dynamic image": lambda: graph(images="uint8[N,H,W,3] images"),
    "prompt name": lambda: graph(prompts="float[R,P,3] tokens"),
    "prompt type": lambda: graph(prompts="double[R,P,3] prompts"),
    "prompt width": lambda: graph(prompts="float[R,P,4] prompts"),
    "prompt rank": lambda: graph(prompts="float[R,3] prompts"),
    "one more input": lambda: graph(prompts="float[R,P,3] prompts, float[1] more"),
    "output name": lambda: graph(
        outputs="float[N,5] scores, float[N,2,3] features", tail="scores = Identity(logits)"
    ),
    "one output less": lambda: graph(outputs="float[N,5] logits"),
    "one output more": lambda: graph(outputs="float[N,5] logits, float[N,2,3] features, float[N,3] m"),
    "four channels": lambda: graph(images="uint8[N,4,4,4] images", axes="1,2"),
    "no onnx": lambda: b"this is no ONNX file",
    "empty": lambda: b"",
}


@pytest.mark.parametrize("kind", BAD_GRAPHS)
def test_graph_that_breaks_the_contract(kind: str, tmp_path: Path) -> None:
    bundle = make(tmp_path, BAD_GRAPHS[kind]())
    with pytest.raises(BundleError) as caught:
        Network.open(bundle.path, workers=1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("changes", [{"layers": 3}, {"width": 4}, {"classes": 6}, {"feature_width": 6}])
def test_graph_that_does_not_fit_the_manifest(changes: dict[str, Any], tmp_path: Path) -> None:
    shape = (changes.get("classes", 5), changes.get("feature_width", 3))
    head = to_npz(weight=np.zeros(shape, np.float32), bias=np.zeros(shape[0], np.float32))
    bundle = make(tmp_path, head=head, class_ids=None, class_names=None, **changes)
    with pytest.raises(BundleError, match="does not fit its manifest"):
        Network.open(bundle.path, workers=1)


def test_create_never_loses_the_old_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = make(tmp_path)
    rename = Path.rename

    def failing(self: Path, target: Any) -> Path:
        if Path(target) == old.path:
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OutputError, match="No space left"):
        create(old.path, manifest(), {"model.onnx": lambda path: path.write_bytes(b"new")}, overwrite=True)
    assert old.path.exists(), "the old bundle was deleted together with the temporary folder"
    assert Bundle.open(old.path) == old


def test_create_leaves_nothing_when_a_writer_fails(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="No space left"):
        create(tmp_path / "bundle", manifest(), {"model.onnx": fail})
    assert not list(tmp_path.iterdir())


def test_equal_arrays_give_equal_bytes() -> None:
    assert to_npz(weight=HEAD) == to_npz(weight=HEAD.copy(order="F"))


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
    """Adds a graph as `fozo quantize` does."""
    with folder_beside(bundle.path) as folder:
        (folder / "new.onnx").write_bytes(content)
        entry = replace(GraphEntry("", 20, 0.5, "fp32"), **fields)
        changed = bundle.with_graph(precision, folder / "new.onnx", entry)
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
    bundle = add(bundle, graph(), "int8-qdq").with_source("int8", statistics(1), "b")
    bundle = bundle.with_source("int8-qdq", statistics(2), "c")
    old = {bundle.manifest.graphs["int8"].file, bundle.manifest.source["int8"].file}
    (bundle.path / "notes.txt").write_text("mine")
    (bundle.path / "model-int8-00000000.onnx").write_bytes(b"mine")
    renewed = add(bundle, graph(tail="unused = Abs(m)"))
    assert list(renewed.manifest.graphs) == ["fp32", "int8", "int8-qdq"]
    assert list(renewed.manifest.source) == ["fp32", "int8-qdq"]
    assert not old & set(renewed.manifest.files)
    expected = ["bundle.json", "notes.txt", "model-int8-00000000.onnx", *renewed.manifest.files]
    assert listing(renewed) == sorted(expected)
    for name in renewed.manifest.files:
        renewed.file(name)
    same = add(renewed, renewed.graph("int8").read_bytes())
    assert same == renewed
    assert same.graph("int8").exists()


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
        lambda: ours.with_graph("int8", graph, GraphEntry("", 20, 0.1)),
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
        bundle.with_graph(name, new, GraphEntry("", 20, 0.5))
    assert new.exists()
    assert listing(bundle) == sorted(["bundle.json", *bundle.manifest.files])
    assert Bundle.open(bundle.path) == bundle


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
    with pytest.raises(BundleError, match="missing or malformed"):
        Bundle.open(bundle.path)


def test_graphs_without_reference_and_record_were_made_from_pytorch(tmp_path: Path) -> None:
    bundle = make(tmp_path)
    for name in ("reference", "record"):
        edit(bundle, lambda raw, name=name: raw["graphs"]["fp32"].pop(name))  # type: ignore[misc]
    assert Bundle.open(bundle.path).manifest.graphs["fp32"] == GraphEntry("model.onnx", 20, 1e-6, "PyTorch")


# --- statistics of features ---


class FakeNetwork:
    """Answers image i of a table with row i: the first two bytes of an image are its index."""

    def __init__(self, features: FloatArray) -> None:
        self.features = features
        layers, width = features.shape[1:]
        self.info = ModelInfo(
            "fake", "fake", layers, 4, 5, 0.1, np.zeros((3, width), np.float32), np.zeros(3, np.float32)
        )

    def __call__(self, images: ImageArray, prompts: FloatArray | None = None) -> Outputs:
        index = images[:, 0, 0, 0].astype(int) * 256 + images[:, 0, 0, 1]
        return Outputs(np.zeros((len(index), 3), np.float32), self.features[index].astype(np.float32))

    def candidates(self, images: ImageArray, tunables: Any) -> list[Outputs]:
        return [self(images, **each) for each in tunables]


def numbered(start: int, stop: int) -> ImageArray:
    images = np.zeros((stop - start, 1, 1, 3), np.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = np.divmod(np.arange(start, stop), 256)
    return images


@pytest.mark.parametrize(
    "sizes", [[300], [64, 64, 64, 64, 44], [1] * 300, [299, 1], [1, 299], [7] * 42 + [6]]
)
def test_streamed_statistics_are_those_of_all_features_at_once(sizes: list[int]) -> None:
    generator = np.random.default_rng(0)
    features = generator.normal(5, 2, (300, 3, 8)) * np.array([1e-3, 1, 50])[:, None] + 100
    features = features.astype(np.float32)
    edges = np.cumsum([0, *sizes])
    batches = (numbered(a, b) for a, b in pairwise(edges.tolist()))
    found = source_statistics(FakeNetwork(features), batches)
    everything = features.astype(np.float64)
    assert found.images == 300
    assert found.mean.dtype == found.std.dtype == np.float32
    np.testing.assert_allclose(found.mean, everything.mean(0), rtol=1e-6)
    np.testing.assert_allclose(found.std, everything.std(0, ddof=1), rtol=1e-6)


@pytest.mark.parametrize("count", [0, 1, 31])
def test_too_few_images(count: int) -> None:
    batches = [numbered(0, count)] if count else []
    with pytest.raises(InputError, match=rf"at least 32 images, found {count}.*uncertain"):
        source_statistics(FakeNetwork(np.zeros((64, 2, 3))), batches)


def test_32_images_are_enough() -> None:
    features = np.random.default_rng(0).normal(size=(32, 2, 3))
    assert source_statistics(FakeNetwork(features), [numbered(0, 32)]).images == 32


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_features_that_are_not_finite(value: float) -> None:
    features = np.zeros((64, 2, 3))
    features[40, 1, 2] = value
    with pytest.raises(InputError, match="non-finite"):
        source_statistics(FakeNetwork(features), [numbered(0, 32), numbered(32, 64)])


def test_statistics_of_a_real_graph(tmp_path: Path) -> None:
    bundle = make(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (50, 4, 4, 3), dtype=np.uint8)
    with Network.open(bundle, workers=2, micro_batch=3) as network:
        stored = bundle.with_source("fp32", source_statistics(network, [images[:20], images[20:]]), "noise")
    found = stored.info("fp32").source
    assert found is not None
    means = images.astype(np.float64).mean((1, 2))
    np.testing.assert_allclose(found.mean[1], means.mean(0), rtol=1e-5)
    np.testing.assert_allclose(found.std[0], means.std(0, ddof=1), rtol=1e-4)


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


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw["preprocessing"].update(resize="32"),
        lambda raw: raw["preprocessing"].update(resize=0),
        lambda raw: raw["preprocessing"].update(interpolation="cubic"),
        lambda raw: raw["files"].pop("model.onnx"),
        lambda raw: raw["graphs"].clear(),
        lambda raw: raw.update(prompt_bound=0),
        lambda raw: raw.update(prompt_bound=float("inf")),
        lambda raw: raw.pop("tunables"),
    ],
)
def test_impossible_manifests(change: Callable[[dict[str, Any]], object], tmp_path: Path) -> None:
    bundle = make(tmp_path)
    edit(bundle, change)
    with pytest.raises(BundleError, match="missing or malformed"):
        Bundle.open(bundle.path)
