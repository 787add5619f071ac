"""The program of examples/c, as its users call it, with the engine's ONNX Runtime and with another one."""

from __future__ import annotations

import io
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from fozo.engine.bundle.preprocessing import INTERPOLATIONS
from host_doubles import ROOT, HostChecks, Run, run_host
from numpy.typing import NDArray
from PIL import Image
from pixel_doubles import check_prepared_photos

FOLDER = ROOT / "examples" / "c"
PACKAGES = FOLDER / "packages" / "onnxruntime"
COMMANDS = ("adapt", "verify", "digits")
for tool in ("make", "cc"):
    if shutil.which(tool) is None:
        pytest.skip(f"there is no {tool}", allow_module_level=True)
if not (PACKAGES / ".complete").is_file():
    pytest.skip("packages are missing: make host-c", allow_module_level=True)
if subprocess.run(
    ["cc", "-E", "-include", "cjson/cJSON.h", "-x", "c", "/dev/null"], capture_output=True
).returncode:
    pytest.skip("cJSON is missing: apt-get install libcjson-dev", allow_module_level=True)


def build(folder: Path, library: Path, flags: str = "-O2") -> Path:
    """Build the program in a folder with a library of ONNX Runtime, and return its path."""
    runtime = folder / "onnxruntime"
    (runtime / "lib").mkdir(parents=True)
    (runtime / "include").symlink_to(PACKAGES / "include")
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (runtime / "lib" / name).symlink_to(library)
    command = ["make", "-C", FOLDER, f"ORT={runtime}", f"OUT={folder / 'step'}", f"CFLAGS={flags}"]
    result = run_host(command)
    assert result.status == 0, result.errors
    return folder / "step"


@pytest.fixture(scope="module")
def engine_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    (library,) = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")
    return build(tmp_path_factory.mktemp("c"), library)


@pytest.fixture(scope="module")
def program_of_packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("c"), PACKAGES / "lib" / "libonnxruntime.so.1")


@pytest.fixture(scope="module")
def photos(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ppm")
    for path in photos.iterdir():
        Image.open(path).convert("RGB").save(folder / f"{path.stem}.ppm")
    return folder


class TestC(HostChecks):
    @pytest.fixture(autouse=True)
    def _use_program(self, engine_program: Path) -> None:
        self.programs = {name: [engine_program, name] for name in COMMANDS}

    def test_a_file_that_is_no_image(
        self, compiled_step: Callable[..., Path], photos: Path, tmp_path: Path
    ) -> None:
        whole = (photos / "01.ppm").read_bytes()
        for content in (b"", b"no image", whole[: len(whole) // 2], b"P6\n1", b"P6\n9 9\n65535\n" + whole):
            (tmp_path / "text.ppm").write_bytes(content)
            self.expect_error("text.ppm", "adapt", compiled_step("neo"), tmp_path)
        (tmp_path / "empty").mkdir()
        self.expect_error("empty", "adapt", compiled_step("neo"), tmp_path / "empty")
        self.expect_error("absent", "adapt", compiled_step("neo"), tmp_path / "absent")

    def test_damaged_vectors(self, compiled_step: Callable[..., Path], tmp_path: Path) -> None:
        shutil.copytree(compiled_step("neo"), tmp_path / "step")
        (tmp_path / "step" / "vectors" / "logits.bin").write_bytes(b"0")
        self.expect_error("logits.bin", "verify", tmp_path / "step")
        (tmp_path / "step" / "vectors.json").write_text("{}")
        self.expect_error("images", "verify", tmp_path / "step")

    def test_another_command(self) -> None:
        for command in ([], ["learn"]):
            result = run_host([*self.programs["adapt"][:1], *command])
            assert result.status == 1 and "adapt, verify, digits or prepare" in result.errors[0]


@pytest.mark.parametrize("method", ["pizo", "fozo", "neo"])
def test_another_version_of_the_runtime(
    compiled_step: Callable[..., Path], program_of_packages: Path, method: str
) -> None:
    result = run_host([program_of_packages, "verify", compiled_step(method)])
    assert result.status == 0, result.errors


def prepare(program: Path, step: Path, pixels: np.ndarray, folder: Path) -> np.ndarray:
    """Return what the program makes of an image."""
    Image.fromarray(pixels).save(folder / "photo.ppm")
    result = subprocess.run([program, "prepare", step, folder / "photo.ppm"], capture_output=True, check=True)
    return np.asarray(Image.open(io.BytesIO(result.stdout)))


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_pixels_are_those_of_pillow(
    compiled_step: Callable[..., Path], engine_program: Path, tmp_path: Path, interpolation: str
) -> None:
    step = tmp_path / "step"
    shutil.copytree(compiled_step("neo"), step)

    def prepare_photo(folder: Path, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return prepare(engine_program, folder, pixels, tmp_path)

    check_prepared_photos(step, interpolation, prepare_photo)


def test_memory_is_released(
    compiled_step: Callable[..., Path],
    photos: Path,
    digits: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """AddressSanitizer ends a program that loses memory or reads beyond its end."""
    sanitizers = "-g -O1 -fsanitize=address,undefined -fno-sanitize-recover=all"
    checked = build(tmp_path, PACKAGES / "lib" / "libonnxruntime.so.1", sanitizers)
    (tmp_path / "known").write_text("leak:libonnxruntime\n")  # a few bytes when it is loaded
    monkeypatch.setenv("LSAN_OPTIONS", f"suppressions={tmp_path / 'known'}:print_suppressions=0")
    step, state = compiled_step("neo"), tmp_path / "state"

    def run(*arguments: object) -> Run:
        result = run_host([checked, *arguments])
        assert "Sanitizer" not in "".join(result.errors), result.errors
        return result

    for _ in range(2):  # the second one loads the state
        assert run("adapt", step, photos, 3, "--state", state).status == 0
    assert run("verify", step).status == 0
    assert run("digits", step, digits, 50).status == 0
    assert run("digits", step, photos).status == 1
