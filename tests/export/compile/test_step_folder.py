"""The folder that `fozo compile` writes, as another program reads it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner
from fozo.cli import cli
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.errors import ExportError, OutputError
from fozo.engine.files import from_npz, hash_file
from fozo.engine.registry import method
from fozo.export.compile import step_folder
from fozo.export.compile.step_folder import StepRequest, compile_step


@pytest.fixture(scope="module")
def folder(bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("compiled") / "step"
    arguments = ["compile", str(bundle_path), "-m", "pizo", "--out", str(path), "--seed", "5"]
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "Verified against the engine over 8 steps" in result.output
    return path


def read_raw(folder: Path, name: str) -> Any:
    """Return an array as a program without NumPy's format reads it."""
    entry = json.loads((folder / "vectors.json").read_text())[name]
    data = (folder / entry["file"]).read_bytes()
    return np.frombuffer(data, np.dtype(entry["type"]).newbyteorder("<")).reshape(entry["shape"])


def test_the_loop_of_a_host_reproduces_the_vectors(folder: Path) -> None:
    description = json.loads((folder / "step.json").read_text())
    init = onnxruntime.InferenceSession(folder / "init.onnx")
    step = onnxruntime.InferenceSession(folder / "step.onnx")
    state = dict(zip([value.name for value in init.get_outputs()], init.run(None, {}), strict=True))
    for index, images in enumerate(read_raw(folder, "images")):
        outputs = dict(
            zip(
                [value.name for value in step.get_outputs()],
                step.run(None, {description["images"]["input"]: images, **state}),
                strict=True,
            )
        )
        np.testing.assert_array_equal(outputs[description["logits"]], read_raw(folder, "logits")[index])
        for entry in description["state"]:
            state[entry["input"]] = outputs[entry["output"]]
            np.testing.assert_array_equal(state[entry["input"]], read_raw(folder, entry["input"])[index + 1])
            assert str(state[entry["input"]].dtype) == entry["type"]
            assert list(state[entry["input"]].shape) == entry["shape"]
    assert int(state["state.updates"]) == 2  # after 64 and 128 images
    assert np.abs(state["state.norms"]).max() > 0 and int(state["state.seed"]) == 5


def test_both_forms_of_the_vectors_are_equal(folder: Path) -> None:
    for name, array in from_npz(folder / "vectors.npz").items():
        np.testing.assert_array_equal(array, read_raw(folder, name))


def test_the_description_says_everything(folder: Path, bundle_path: Path) -> None:
    description = json.loads((folder / "step.json").read_text())
    bundle = Bundle.open(bundle_path)
    assert description["method"] == "pizo" and description["options"]["generator"] == "philox"
    assert description["images"] == {
        "input": "images",
        "type": "uint8",
        "shape": ["N", 32, 32, 3],
        "colours": "RGB",
    }
    assert description["preprocessing"]["interpolation"] == "bicubic"
    assert description["graph_sha256"] == bundle.graph_sha256("fp32")
    assert description["operators"] == ["ai.onnx"]
    for name, digest in description["files"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    graph = onnx.load(folder / "step.onnx")
    inside = json.loads({entry.key: entry.value for entry in graph.metadata_props}["fozo.step"])
    assert inside == {name: value for name, value in description.items() if name != "files"}


def test_a_fixed_batch(bundle_path: Path, tmp_path: Path) -> None:
    request = StepRequest(Bundle.open(bundle_path), method("neo"), batch=3)
    compiled = compile_step(request, tmp_path / "step")
    assert compiled.description["images"]["shape"] == [3, 32, 32, 3]
    session = onnxruntime.InferenceSession(tmp_path / "step" / "step.onnx")
    assert session.get_inputs()[0].shape == [3, 32, 32, 3]
    assert session.get_outputs()[0].shape == [3, 20]


def test_a_step_in_integers_is_verified_in_fp32_too(
    int8_bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = StepRequest(Bundle.open(int8_bundle_path), method("pizo"), "int8")
    compiled = compile_step(request, tmp_path / "step")
    assert compiled.description["operators"] == ["ai.onnx", "com.microsoft"]

    def differ(*arguments: object) -> None:
        raise ExportError("differs in fp32")

    monkeypatch.setattr(step_folder, "check_difference", differ)
    with pytest.raises(ExportError, match="differs in fp32"):
        compile_step(request, tmp_path / "other")


def test_nothing_is_written_if_the_graph_differs(
    bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_folder, "LARGEST_DIFFERENCE", -1.0)
    with pytest.raises(ExportError, match="differs from the engine by"):
        compile_step(StepRequest(Bundle.open(bundle_path), method("neo")), tmp_path / "step")
    assert not (tmp_path / "step").exists()


def test_other_content_and_an_older_step_stay(bundle_path: Path, tmp_path: Path) -> None:
    request = StepRequest(Bundle.open(bundle_path), method("no_adapt"))
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    with pytest.raises(OutputError, match="has other content"):
        compile_step(request, tmp_path / "photos", overwrite=True)
    compile_step(request, tmp_path / "step")
    with pytest.raises(OutputError, match="--overwrite"):
        compile_step(request, tmp_path / "step")
    compile_step(request, tmp_path / "step", overwrite=True)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="expected a folder"):
        compile_step(request, tmp_path / "file")


def list_hashes(folder: Path) -> dict[str, str]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hash_file(path) for path in paths}


@pytest.mark.parametrize("writes", range(0, 12, 3))
def test_an_interrupted_write_leaves_the_old_step(
    bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    folder, left = tmp_path / "step", writes
    compile_step(StepRequest(Bundle.open(bundle_path), method("neo")), folder)
    (folder / ".gitignore").touch()
    before = list_hashes(folder)

    def write_some(path: Path, content: bytes) -> None:
        nonlocal left
        if not left:
            raise KeyboardInterrupt
        left -= 1
        path.write_bytes(content)

    monkeypatch.setattr(step_folder, "write_atomic", write_some)
    request = StepRequest(Bundle.open(bundle_path), method("shift"))
    with pytest.raises(KeyboardInterrupt):
        compile_step(request, folder, overwrite=True)
    assert list_hashes(folder) == before
    monkeypatch.undo()
    compile_step(request, folder, overwrite=True)
    description = json.loads((folder / "step.json").read_text())
    assert description["method"] == "shift"
    assert list_hashes(folder).keys() == {*description["files"], "step.json", ".gitignore"}
    assert list_hashes(folder).items() >= description["files"].items()


def test_a_seed_that_a_state_cannot_hold(bundle_path: Path, tmp_path: Path) -> None:
    arguments = ["compile", str(bundle_path), "--out", str(tmp_path / "step"), "--seed"]
    result = CliRunner().invoke(cli, [*arguments, str(2**63)])
    assert result.exit_code == 2 and f"0<=x<={2**63 - 1}" in result.stderr
    result = CliRunner().invoke(cli, [*arguments, str(2**63 - 1)], catch_exceptions=False)
    assert result.exit_code == 0
    assert read_raw(tmp_path / "step", "state.seed").tolist()[0] == 2**63 - 1
