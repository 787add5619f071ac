"""The program of examples/rust, as its users call it."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import fozo
import numpy as np
import onnxruntime
import pytest
from doubles import draw_picture
from fozo.data.demo import DEMO_BUNDLE
from fozo.engine.bundle.preprocessing import INTERPOLATIONS
from host_doubles import ROOT, HostChecks, run_host
from numpy.typing import NDArray
from PIL import Image
from pixel_doubles import check_prepared_photos

FOLDER = ROOT / "examples" / "rust"
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", FOLDER / "target"))
PROGRAM = TARGET / "release" / "fozo-step"
LIBRARIES = sorted((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*"))
if shutil.which("cargo") is None:
    pytest.skip("there is no cargo", allow_module_level=True)
if not PROGRAM.is_file():
    pytest.skip("the program is not built: make host-rust", allow_module_level=True)
if not LIBRARIES:
    pytest.skip("the package onnxruntime has no library of its own here", allow_module_level=True)


@pytest.fixture(scope="module", autouse=True)
def _build() -> None:
    """Bring the program up to date; only its own files are compiled again."""
    command = [
        "cargo",
        "build",
        "--release",
        "--offline",
        "--quiet",
        "--manifest-path",
        FOLDER / "Cargo.toml",
    ]
    result = run_host(command)
    assert result.status == 0, result.errors


@pytest.fixture(autouse=True)
def _use_the_library_of_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORT_DYLIB_PATH", str(LIBRARIES[0]))


@pytest.fixture(scope="module")
def photos(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the photos without JPEG, which is decoded otherwise than by Pillow."""
    folder = tmp_path_factory.mktemp("png")
    for path in photos.iterdir():
        Image.open(path).save(folder / f"{path.stem}.png")
    return folder


class TestRust(HostChecks):
    programs: ClassVar[Mapping[str, Sequence[object]]] = {
        name: [PROGRAM, name] for name in ("adapt", "verify", "digits")
    }

    def test_damaged_vectors(self, compiled_step: Callable[..., Path], tmp_path: Path) -> None:
        shutil.copytree(compiled_step("neo"), tmp_path / "step")
        (tmp_path / "step" / "vectors" / "logits.bin").write_bytes(b"0")
        self.expect_error("logits.bin", "verify", tmp_path / "step")
        (tmp_path / "step" / "vectors.json").write_text("{}")
        self.expect_error("images", "verify", tmp_path / "step")

    @pytest.mark.parametrize("path", ["", "absent.so", "Cargo.toml"])
    def test_no_library(
        self, compiled_step: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, path: str
    ) -> None:
        monkeypatch.setenv("ORT_DYLIB_PATH", path and str(FOLDER / path))
        self.expect_error("ONNX Runtime", "verify", compiled_step("neo"))

    def test_another_command(self) -> None:
        for command in ([], ["learn"]):
            result = run_host([PROGRAM, *command])
            assert result.status == 1 and "adapt, digits, verify or prepare" in result.errors[0]


def prepare(step: Path, photo: Path) -> NDArray[np.uint8]:
    """Return what the program makes of a photo."""
    result = subprocess.run([PROGRAM, "prepare", step, photo], capture_output=True, check=True)
    return np.asarray(Image.open(io.BytesIO(result.stdout)))


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_pixels_are_those_of_pillow(
    compiled_step: Callable[..., Path], tmp_path: Path, interpolation: str
) -> None:
    step = tmp_path / "step"
    shutil.copytree(compiled_step("neo"), step)

    def prepare_photo(folder: Path, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        Image.fromarray(pixels).save(tmp_path / "photo.png")
        return prepare(folder, tmp_path / "photo.png")

    check_prepared_photos(step, interpolation, prepare_photo)


def test_jpeg_files_differ_by_little(compiled_step: Callable[..., Path], tmp_path: Path) -> None:
    """Its decoder is another one than Pillow's."""
    preprocessing = fozo.Bundle.open(DEMO_BUNDLE).manifest.preprocessing
    path = tmp_path / "photo.jpg"
    for index in range(5):
        Image.fromarray(draw_picture(index, (91, 200))).save(path, quality=95)
        expected = fozo.preprocess(fozo.read_image(path), preprocessing).astype(int)
        difference = np.abs(prepare(compiled_step("neo"), path) - expected)
        assert difference.mean() < 1 and difference.max() < 16
