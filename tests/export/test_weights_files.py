"""Weights in folders and in several files, and names of classes beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from export_doubles import SMALL, save_weights
from fozo.engine.errors import ExportError
from fozo.engine.files import hash_file, hash_texts
from vit_doubles import randomise
from weights_doubles import CLASSES, DEPTH, HEADS, PATCH, WIDTH, State, make_state

torch = pytest.importorskip("torch", reason="export needs PyTorch")
timm = pytest.importorskip("timm", reason="export needs timm")

from fozo.export.exporter import ExportResult, export_model  # noqa: E402
from fozo.export.hugging_face_labels import read_class_labels  # noqa: E402
from fozo.export.model_request import Request  # noqa: E402
from fozo.export.weights import load_weights  # noqa: E402
from fozo.export.weights_files import locate_weights, read_weights  # noqa: E402
from timm.models.vision_transformer import VisionTransformer  # noqa: E402

INDEX = "model.safetensors.index.json"
SHARDS = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]


def save_shards(folder: Path, state: State, shards: list[str] = SHARDS, index: str = INDEX) -> Path:
    """Save a state as Hugging Face's libraries do where it is larger than a file shall be."""
    names = list(state)
    middle = len(names) // 2
    places = {}
    for shard, group in zip(shards, (names[:middle], names[middle:]), strict=True):
        save_weights(folder, {name: state[name] for name in group}, shard)
        places.update(dict.fromkeys(group, shard))
    path = folder / index
    path.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    return path


def make_model() -> Any:
    return randomise(
        VisionTransformer(
            img_size=SMALL,
            patch_size=PATCH,
            embed_dim=WIDTH,
            depth=DEPTH,
            num_heads=HEADS,
            num_classes=CLASSES,
        ),
        seed=9,
    ).eval()


def refuse(path: Path) -> str:
    with pytest.raises(ExportError) as caught:
        load_weights(make_model(), path)
    return str(caught.value)


def test_a_checkpoint_in_several_files_is_one(tmp_path: Path) -> None:
    state, (whole, sharded) = make_state(), (make_model(), make_model())
    load_weights(whole, save_weights(tmp_path, state))
    index = save_shards(tmp_path, state)
    origin = load_weights(sharded, index)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, sharded.state_dict()[name]), name
    files = [index, *(tmp_path / shard for shard in SHARDS)]
    assert origin.sha256 == hash_texts(*map(hash_file, files))
    assert origin.description.startswith(f"{INDEX}, SHA-256 {origin.sha256}")


def test_checkpoints_of_pytorch_in_several_files(tmp_path: Path) -> None:
    shards = [shard.replace("model", "pytorch_model").replace("safetensors", "bin") for shard in SHARDS]
    state = make_state()
    index = save_shards(tmp_path, state, shards, "pytorch_model.bin.index.json")
    assert read_weights(index)[""].keys() == state.keys()


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["model.safetensors", "pytorch_model.bin", INDEX], "model.safetensors"),
        (["pytorch_model.bin", INDEX], INDEX),
        (["pytorch_model.bin", "config.json"], "pytorch_model.bin"),
        (["pytorch_model.bin.index.json"], "pytorch_model.bin.index.json"),
    ],
)
def test_a_folder_stands_for_its_weights(names: list[str], expected: str, tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).touch()
    assert locate_weights(tmp_path) == tmp_path / expected
    assert locate_weights(tmp_path / "other.pt") == tmp_path / "other.pt"


def test_a_folder_without_weights_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"expected model\.safetensors, .*, found none of them; name the"):
        locate_weights(tmp_path)


def test_one_file_of_several_is_recognised(tmp_path: Path) -> None:
    save_shards(tmp_path, make_state())
    assert f"one of 2 files that hold the weights together; give the index beside them, {INDEX}" in refuse(
        tmp_path / SHARDS[1]
    )
    alone = save_weights(tmp_path, make_state(), "model-00001-of-00001.safetensors")
    load_weights(make_model(), alone)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    index = save_shards(tmp_path, make_state())
    (tmp_path / SHARDS[1]).unlink()
    assert f"cannot read the weights {tmp_path / SHARDS[1]}: No such file" in refuse(index)


@pytest.mark.parametrize("change", ["a tensor more", "a tensor less"])
def test_an_index_of_other_files_is_refused(change: str, tmp_path: Path) -> None:
    state = make_state()
    index = save_shards(tmp_path, state)
    content = json.loads(index.read_text())
    if change == "a tensor more":
        content["weight_map"]["surprise"] = SHARDS[0]
    else:
        del content["weight_map"]["classifier.bias"]
    index.write_text(json.dumps(content))
    where = "surprise is only in the index" if "more" in change else "classifier.bias is only in the file"
    assert where in refuse(index)


@pytest.mark.parametrize(
    "places",
    [
        None,
        {},
        [],
        {"a": 1},
        {"a": "../model.safetensors"},
        {"a": "/etc/passwd"},
        {"a": "x.txt"},
        {"a": ".."},
        {"a": f"sub/{SHARDS[0]}"},
    ],
)
def test_indices_that_cannot_be_used(places: Any, tmp_path: Path) -> None:
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": places}))
    assert "is no index of weights: expected weight_map" in refuse(tmp_path / INDEX)
    (tmp_path / INDEX).write_text("[" * 10**5)
    assert "cannot be read as an index" in refuse(tmp_path / INDEX)


def test_an_index_of_too_many_files(tmp_path: Path) -> None:
    places = {str(number): f"{number}.bin" for number in range(1001)}
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": places}))
    assert "more than 1,000 files" in refuse(tmp_path / INDEX)


# --- names of classes ---


def write_labels(folder: Path, labels: Any, **settings: Any) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps({"model_type": "vit", "id2label": labels, **settings}))
    return path


def test_names_of_classes_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    labels = {str(number): f"class {number}" for number in reversed(range(12))}
    names = tuple(f"class {number}" for number in range(12))
    assert read_class_labels(write_labels(tmp_path, labels), 12) == (names, names)


def test_equal_names_are_no_identifiers(tmp_path: Path) -> None:
    """ImageNet has two cranes: a bird, and a machine."""
    path = write_labels(tmp_path, {"0": "crane", "1": "tench, Tinca tinca", "2": "crane"})
    assert read_class_labels(path, 3) == (None, ("crane", "tench, Tinca tinca", "crane"))


def test_placeholders_are_no_names(tmp_path: Path) -> None:
    assert read_class_labels(write_labels(tmp_path, {"0": "LABEL_0", "1": "LABEL_1"}), 2) is None
    assert read_class_labels(write_labels(tmp_path, None), 2) is None
    (tmp_path / "config.json").write_text('{"architecture": "vit", "id2label": 3}')  # timm's own
    assert read_class_labels(tmp_path / "config.json", 2) is None
    assert read_class_labels(tmp_path / "missing.json", 2) is None


@pytest.mark.parametrize(
    "labels",
    [
        {"0": "a"},
        {"0": "a", "1": "b", "2": "c"},
        {"0": "a", "2": "b"},
        {"0": "a", "1": 3},
        {"0": "a", "1": " "},
        {"0": "a", "1": "b\x1b[2J"},
        ["a", "b"],
        "ab",
    ],
)
def test_names_of_other_classes_are_refused(labels: Any, tmp_path: Path) -> None:
    path = write_labels(tmp_path, labels)
    with pytest.raises(ExportError, match=r"expected names of the 2 classes in id2label, .*--classes FILE"):
        read_class_labels(path, 2)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare each graph with PyTorch on a single batch: other tests do the rest."""
    monkeypatch.setattr("fozo.export.verify.BATCHES", (2,))


def export(folder: Path, labels: Any, monkeypatch: pytest.MonkeyPatch, **options: Any) -> ExportResult:
    """Export a folder as transformers saves it, with weights in two files."""
    model = make_model()
    model.pretrained_cfg = timm.create_model("test_vit").pretrained_cfg
    monkeypatch.setattr("fozo.export.model_request.timm.create_model", lambda name, **ignored: model)
    (folder / "model").mkdir()
    save_shards(folder / "model", make_state())
    settings = {"num_attention_heads": HEADS, "hidden_act": "gelu", "layer_norm_eps": 1e-12}
    write_labels(folder / "model", labels, **settings)
    return export_model(Request("test_vit", folder / "model", **options), folder / "bundle")


def test_an_export_takes_the_names_of_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = {str(number): f"class {number}" for number in range(CLASSES)}
    result = export(tmp_path, labels, monkeypatch)
    assert result.bundle.manifest.class_ids == tuple(labels.values())
    assert any("the classes are named by id2label in config.json" in note for note in result.notes)
    assert not any("have no names" in note for note in result.notes)


def test_an_export_says_that_equal_names_are_no_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = {str(number): "crane" for number in range(CLASSES)}
    result = export(tmp_path, labels, monkeypatch)
    assert result.bundle.manifest.class_ids is None
    assert result.bundle.manifest.class_names == ("crane",) * CLASSES
    assert any("as some are equal" in note for note in result.notes)


def test_names_of_the_user_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "classes.txt").write_text("".join(f"mine{number}\n" for number in range(CLASSES)))
    result = export(tmp_path, "nonsense", monkeypatch, classes_file=tmp_path / "classes.txt")
    assert result.bundle.manifest.class_ids is not None
    assert result.bundle.manifest.class_ids[0] == "mine0"
    assert not any("id2label" in note for note in result.notes)
