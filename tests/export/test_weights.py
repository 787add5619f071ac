"""Weights files in all formats, and weights that do not fit."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export_doubles import export_small, save_weights
from fozo.engine.errors import ExportError

torch = pytest.importorskip("torch", reason="export needs PyTorch")
timm = pytest.importorskip("timm", reason="export needs timm")

WRAPPINGS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "safetensors": ("w.safetensors", lambda state: state),
    "pt": ("w.pt", lambda state: state),
    "pth": ("w.pth", lambda state: state),
    "state_dict": ("w.pt", lambda state: {"state_dict": state, "epoch": 3}),
    "model": ("w.pt", lambda state: {"model": state, "optimizer": {"lr": 0.1}}),
    "half": ("w.safetensors", lambda state: {key: value.half() for key, value in state.items()}),
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_weights_files(wrapping: str, tmp_path: Path, small_weights: dict[str, Any]) -> None:
    name, wrap = WRAPPINGS[wrapping]
    bundle = export_small(tmp_path, save_weights(tmp_path, wrap(small_weights), name))
    with np.load(bundle.file("head.npz")) as head:
        expected = small_weights["head.weight"].numpy()
        np.testing.assert_allclose(head["weight"], expected, atol=2e-3 if wrapping == "half" else 0)
        np.testing.assert_allclose(
            head["bias"], small_weights["head.bias"].numpy(), atol=2e-3 if wrapping == "half" else 0
        )
    assert bundle.manifest.graphs["fp32"].max_abs_difference < 1e-2
    assert sorted(path.name for path in bundle.path.iterdir()) == ["bundle.json", "head.npz", "model.onnx"]
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".tmp")]


def test_missing_unexpected_and_misshapen_keys_are_listed(
    tmp_path: Path, small_weights: dict[str, Any]
) -> None:
    state = dict(small_weights)
    del state["norm.bias"]
    state["surprise"] = torch.zeros(1)
    state["cls_token"] = torch.zeros(1, 1, 63)
    with pytest.raises(ExportError) as caught:
        export_small(tmp_path, save_weights(tmp_path, state))
    message = str(caught.value)
    assert "1 missing (norm.bias)" in message
    assert "1 unexpected (surprise)" in message
    assert "cls_token [1, 1, 63] instead of [1, 1, 64]" in message
    assert not (tmp_path / "bundle").exists()


def test_weights_of_another_number_of_classes(tmp_path: Path, small_weights: dict[str, Any]) -> None:
    path = save_weights(tmp_path, small_weights)
    with pytest.raises(ExportError, match=r"head\.weight \[1000, 64\] instead of \[10, 64\]"):
        export_small(tmp_path, path, num_classes=10)


class Evil:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    torch.save({"w": Evil(marker)}, tmp_path / "zip.pt")
    (tmp_path / "raw.pkl").write_bytes(pickle.dumps({"w": Evil(marker)}))
    for name in ("zip.pt", "raw.pkl"):
        with pytest.raises(ExportError) as caught:
            export_small(tmp_path, tmp_path / name)
        assert "\n" not in str(caught.value)
        assert not marker.exists()


GARBAGE: dict[str, bytes] = {
    "empty": b"",
    "hello": b"hello world, these are no weights",
    "text": b"This is not a file of weights\n" * 10,
    "html": b"<!DOCTYPE html><html><body>404</body></html>",
    "zeros": bytes(4096),
    "json": b'{"a": 1}',
    "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0000\nsize 5\n",
    "zip": b"PK\x03\x04" + bytes(200),
    "random": np.random.default_rng(0).bytes(3000),
    "plain pickle": pickle.dumps([1, 2, 3]),
}


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_weights(kind: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(GARBAGE[kind])
    with pytest.raises(ExportError, match=r"weights\.") as caught:
        export_small(tmp_path, path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    "content", [[1, 2], {"a": 1}, {0: torch.zeros(1)}, {"state_dict": {"a": "b"}}, torch.zeros(3)]
)
def test_files_that_hold_no_state_dict(content: Any, tmp_path: Path) -> None:
    with pytest.raises(ExportError):
        export_small(tmp_path, save_weights(tmp_path, content))


def test_missing_weights_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.pt", tmp_path):
        with pytest.raises(ExportError, match="weights"):
            export_small(tmp_path, path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("key", ["head.bias", "blocks.2.mlp.fc1.weight", "pos_embed"])
def test_weights_that_are_not_finite(
    key: str, value: float, tmp_path: Path, small_weights: dict[str, Any]
) -> None:
    state = {name: tensor.clone() for name, tensor in small_weights.items()}
    state[key].view(-1)[5] = value
    with pytest.raises(ExportError):
        export_small(tmp_path, save_weights(tmp_path, state))
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int64, torch.bool])
def test_quantised_weights_are_not_taken_for_numbers(
    dtype: Any, tmp_path: Path, small_weights: dict[str, Any]
) -> None:
    state = {**small_weights, "head.weight": small_weights["head.weight"].to(dtype)}
    with pytest.raises(
        ExportError, match=r"expected weights in floating point, found head\.weight of torch\."
    ):
        export_small(tmp_path, save_weights(tmp_path, state))


class Unknown:
    """An object of somebody's training code."""


def test_a_checkpoint_of_lightning_with_objects(tmp_path: Path) -> None:
    content = {
        "pytorch-lightning_version": "2.4",
        "state_dict": {"w": torch.zeros(1)},
        "hyper_parameters": Unknown(),
    }
    with pytest.raises(ExportError, match=r"a checkpoint of Lightning .*\['state_dict'\]"):
        export_small(tmp_path, save_weights(tmp_path, content, "pl.ckpt"))


def test_a_torchscript_archive(tmp_path: Path) -> None:
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "w.pt"))
    with pytest.raises(ExportError, match=r"a TorchScript archive.*torch\.jit\.load"):
        export_small(tmp_path, tmp_path / "w.pt")


def test_a_pickled_whole_model(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "w.pt")
    with pytest.raises(ExportError, match=r"a pickled whole model.*\.state_dict\(\)"):
        export_small(tmp_path, tmp_path / "w.pt")
