"""Compiled steps, digits and runs for the tests of programs in other languages."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fozo
import numpy as np
import pytest
from click.testing import CliRunner
from doubles import child_environment, draw_picture
from fozo.cli import cli
from fozo.data.demo import DEMO_BUNDLE
from numpy.typing import NDArray
from PIL import Image

ROOT = Path(__file__).parent.parent
STEPS = 50
# Method and precision of the steps that every language verifies.
COMPILED = (("pizo", "fp32"), ("fozo", "fp32"), ("neo", "fp32"), ("pizo", "int8"))


@dataclass(frozen=True)
class Run:
    """Result of a program: exit status, and lines of both streams."""

    status: int
    lines: list[str]
    errors: list[str]


def run_host(command: Sequence[object]) -> Run:
    """Run a program in the root of the repository."""
    result = subprocess.run(
        [str(word) for word in command], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    return Run(result.returncode, result.stdout.splitlines(), result.stderr.splitlines())


def compile_demo(folder: Path, method: str, precision: str = "fp32", *arguments: str) -> Path:
    """Compile a method for the demonstration's bundle, and return the folder."""
    command = ["compile", str(DEMO_BUNDLE), "-m", method, "--precision", precision, "--out", str(folder)]
    result = CliRunner().invoke(cli, [*command, *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return folder


def write_digits(folder: Path) -> Path:
    """Write the digits of `tools/digit_stream.py`, and return their folder."""
    command = [
        sys.executable,
        ROOT / "tools" / "digit_stream.py",
        folder,
        "--bundle",
        DEMO_BUNDLE,
        "--images",
        "400",
    ]
    subprocess.run(command, env=child_environment(), check=True)
    return folder


def open_adapter(method: str, precision: str) -> fozo.Adapter:
    """Return the engine with the random directions of a graph, if the method draws any."""
    options = {} if method in ("neo", "no_adapt") else {"generator": "philox"}
    return fozo.Adapter.open(DEMO_BUNDLE, method=method, precision=precision, **options)


def measure_engine_accuracy(digits: Path, method: str, precision: str, batch: int) -> float:
    """Return the accuracy of the engine on digits, in percent, with a graph's random directions."""
    images = np.fromfile(digits / "images.bin", np.uint8).reshape(-1, 32, 32, 3)
    labels = np.fromfile(digits / "labels.bin", np.uint8)
    adapter = open_adapter(method, precision)
    starts = range(0, len(images), batch)
    predictions = [adapter.step(images[start : start + batch]).logits.argmax(1) for start in starts]
    return float(100 * np.mean(np.concatenate(predictions) == labels))


def predict_with_engine(photos: Sequence[Path], method: str, batch: int) -> NDArray[Any]:
    """Return the engine's logits for photos, `[N, K]`, with a graph's random directions."""
    preprocessing = fozo.Bundle.open(DEMO_BUNDLE).manifest.preprocessing
    images = np.stack([fozo.preprocess(fozo.read_image(path), preprocessing) for path in photos])
    adapter = open_adapter(method, "fp32")
    starts = range(0, len(images), batch)
    return np.concatenate([adapter.step(images[start : start + batch]).logits for start in starts])


def truncate_graph(step: Path, folder: Path) -> Path:
    """Copy a step whose graph ends early, and return the copy."""
    shutil.copytree(step, folder)
    graph = folder / "step.onnx"
    graph.write_bytes(graph.read_bytes()[:-1000])
    return folder


def change_vector(step: Path, folder: Path, name: str, share: float) -> Path:
    """Copy a step with one value of its vectors changed by a share of the largest, and return the copy."""
    shutil.copytree(step, folder)
    entry = json.loads((folder / "vectors.json").read_text())[name]
    values = np.fromfile(folder / entry["file"], entry["type"])
    if values.dtype.kind == "i":
        values[-1] += 1
    else:
        values[-1] += share * np.abs(values).max()
    values.tofile(folder / entry["file"])
    description = json.loads((folder / "step.json").read_text())
    description["files"][entry["file"]] = hashlib.sha256(values.tobytes()).hexdigest()
    (folder / "step.json").write_text(json.dumps(description))
    return folder


def save_photos(folder: Path, count: int = 20) -> Path:
    """Write photos of several sizes, some of them grey or transparent, and return the folder."""
    sizes = ((64, 48), (48, 100), (32, 32), (91, 200), (20, 25))
    for index in range(count):
        picture = Image.fromarray(draw_picture(index, sizes[index % len(sizes)]))
        mode, suffix = (("RGB", "jpg"), ("RGB", "png"), ("L", "png"), ("RGBA", "png"))[index % 4]
        picture = picture.convert(mode)
        if mode == "RGBA":
            picture.putalpha(100)
        picture.save(folder / f"{index:02d}.{suffix}", **({"quality": 95} if suffix == "jpg" else {}))
    return folder


class HostChecks:
    """Tests of the three programs of a language; a subclass says how they are called.

    Attributes:
        programs: words of the command that runs each program.
        int8_tolerance: how far an int8 step may differ from the stored one, as a share of the largest value.
    """

    programs: Mapping[str, Sequence[object]]
    int8_tolerance = "1e-4"

    def run(self, program: str, *arguments: object) -> Run:
        return run_host([*self.programs[program], *arguments])

    def expect_error(self, message: str, program: str, *arguments: object) -> None:
        result = self.run(program, *arguments)
        assert result.status == 1
        (line,) = result.errors
        assert message in line, line

    @pytest.mark.parametrize(("method", "precision"), COMPILED)
    def test_steps_are_those_of_the_compilation(
        self, compiled_step: Callable[..., Path], method: str, precision: str
    ) -> None:
        folder = compiled_step(method, precision)
        tolerance = self.int8_tolerance if precision == "int8" else "1e-4"
        result = self.run("verify", folder, "--tolerance", tolerance)
        assert result.status == 0, result.errors
        assert result.lines[-1].startswith(f"{STEPS} steps are those of the compilation")
        stored = set(json.loads((folder / "vectors.json").read_text()))
        diagnostics = json.loads((folder / "step.json").read_text())["diagnostics"].values()
        assert {line.split("\t")[0] for line in result.lines[:-1]} == stored - {"images", *diagnostics}

    @pytest.mark.parametrize("name", ["logits", "state.norms", "state.step"])
    def test_a_difference_is_an_error(
        self, compiled_step: Callable[..., Path], tmp_path: Path, name: str
    ) -> None:
        folder = change_vector(compiled_step("pizo"), tmp_path / "step", name, 3e-4)
        self.expect_error(f" {name} ", "verify", folder)
        if name != "state.step":
            assert self.run("verify", folder, "--tolerance", "1e-3").status == 0

    @pytest.mark.parametrize(("method", "precision"), COMPILED)
    def test_the_accuracy_is_that_of_the_engine(
        self,
        compiled_step: Callable[..., Path],
        digits: Path,
        engine_accuracy: Callable[[str, str, int], float],
        method: str,
        precision: str,
    ) -> None:
        result = self.run("digits", compiled_step(method, precision), digits, 16)
        assert result.status == 0, result.errors
        accuracy = float(result.lines[0].split()[1])
        assert accuracy == pytest.approx(engine_accuracy(method, precision, 16), abs=0.5)
        assert accuracy > engine_accuracy("no_adapt", precision, 16)

    def test_photos_get_the_classes_of_the_engine(
        self, compiled_step: Callable[..., Path], photos: Path
    ) -> None:
        result = self.run("adapt", compiled_step("pizo"), photos, 4)
        assert result.status == 0, result.errors
        rows = [line.split("\t") for line in result.lines]
        paths = sorted(photos.iterdir())
        names = fozo.Bundle.open(DEMO_BUNDLE).manifest.class_names or tuple(map(str, range(10)))
        assert [row[0] for row in rows] == [path.name for path in paths]
        assert [row[1] for row in rows] == [
            names[label] for label in predict_with_engine(paths, "pizo", 4).argmax(1)
        ]

    def test_the_entropy_is_the_mean_of_the_stream(
        self, compiled_step: Callable[..., Path], photos: Path
    ) -> None:
        result = self.run("adapt", compiled_step("no_adapt"), photos, 8)
        logits = predict_with_engine(sorted(photos.iterdir()), "no_adapt", 8).astype(np.float64)
        logits -= logits.max(1, keepdims=True)
        logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        entropies = -(np.exp(logs) * logs).sum(1)
        expected = [entropies[: min(8 * (index // 8 + 1), 20)].mean() for index in range(20)]
        printed = [float(line.split("\t")[2]) for line in result.lines]
        np.testing.assert_allclose(printed, expected, atol=1e-3)

    def test_a_stored_state_goes_on(
        self, compiled_step: Callable[..., Path], photos: Path, tmp_path: Path
    ) -> None:
        folder, state = compiled_step("fozo"), tmp_path / "state"
        for name, start in (("first", 0), ("second", 8)):
            (tmp_path / name).mkdir()
            for path in sorted(photos.iterdir())[start : start + (8 if start == 0 else 12)]:
                shutil.copy(path, tmp_path / name)
        pieces = [
            self.run("adapt", folder, tmp_path / name, 4, "--state", state) for name in ("first", "second")
        ]
        alone = self.run("adapt", folder, photos, 4, "--state", tmp_path / "other")
        assert [part.status for part in (*pieces, alone)] == [0, 0, 0]
        assert state.read_bytes() == (tmp_path / "other").read_bytes()
        classes = [[line.split("\t")[:2] for line in part.lines] for part in (*pieces, alone)]
        assert classes[0] + classes[1] == classes[2]

    def test_a_fixed_batch_is_filled_up(self, compiled_step: Callable[..., Path], photos: Path) -> None:
        folder = compiled_step("neo", "fp32", "--batch", "6")
        result = self.run("adapt", folder, photos)
        assert result.status == 0 and len(result.lines) == 20
        self.expect_error("expected batches of 6", "adapt", folder, photos, 4)

    def test_no_step(self, tmp_path: Path, photos: Path) -> None:
        self.expect_error("fozo compile", "adapt", tmp_path, photos)
        (tmp_path / "step.json").write_text("{")
        self.expect_error("step.json", "adapt", tmp_path, photos)
        (tmp_path / "step.json").write_text('{"schema": 99}')
        self.expect_error("schema", "adapt", tmp_path, photos)

    @pytest.mark.parametrize("program", ["adapt", "verify", "digits"])
    def test_a_truncated_graph(
        self, compiled_step: Callable[..., Path], photos: Path, digits: Path, tmp_path: Path, program: str
    ) -> None:
        folder = truncate_graph(compiled_step("neo"), tmp_path / "step")
        arguments = {"adapt": [photos], "verify": [], "digits": [digits]}[program]
        self.expect_error("step.onnx", program, folder, *arguments)

    def test_a_state_of_another_step(
        self, compiled_step: Callable[..., Path], photos: Path, tmp_path: Path
    ) -> None:
        state = tmp_path / "state"
        assert self.run("adapt", compiled_step("pizo:rate=0.02"), photos, "--state", state).status == 0
        stored = state.read_bytes()
        self.expect_error("of another step", "adapt", compiled_step("pizo"), photos, "--state", state)
        self.expect_error("of another step", "adapt", compiled_step("neo"), photos, "--state", state)
        assert state.read_bytes() == stored

    @pytest.mark.parametrize("path", ["absent/state", "folder"])
    def test_a_state_that_cannot_be_stored(
        self, compiled_step: Callable[..., Path], photos: Path, tmp_path: Path, path: str
    ) -> None:
        (tmp_path / "folder").mkdir()
        result = self.run("adapt", compiled_step("neo"), photos, "--state", tmp_path / path)
        assert result.status == 1 and result.lines == []  # it is said before the stream begins
        (line,) = result.errors
        assert str(tmp_path / path) in line and " state" in line

    def test_states_of_similar_names(
        self, compiled_step: Callable[..., Path], photos: Path, tmp_path: Path
    ) -> None:
        state = tmp_path / "camera.1"
        (tmp_path / "camera.new").write_text("of somebody else")
        assert self.run("adapt", compiled_step("neo"), photos, "--state", state).status == 0
        assert {path.name for path in tmp_path.iterdir()} == {"camera.1", "camera.new"}
        assert (tmp_path / "camera.new").read_text() == "of somebody else"

    def test_a_step_that_the_runtime_cannot_run(
        self, compiled_step: Callable[..., Path], photos: Path, tmp_path: Path
    ) -> None:
        step = tmp_path / "step"
        shutil.copytree(compiled_step("neo", "fp32", "--batch", "6"), step)
        description = json.loads((step / "step.json").read_text())
        description["images"]["shape"][0] = "N"  # although the graph takes six
        (step / "step.json").write_text(json.dumps(description))
        self.expect_error("images", "adapt", step, photos, "4")

    def test_a_file_that_is_no_image(
        self, compiled_step: Callable[..., Path], photos: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "text.png").write_text("no image")
        self.expect_error("text.png", "adapt", compiled_step("neo"), tmp_path)
        whole = (photos / "01.png").read_bytes()
        (tmp_path / "text.png").write_bytes(whole[: len(whole) // 2])
        self.expect_error("text.png", "adapt", compiled_step("neo"), tmp_path)
        (tmp_path / "empty").mkdir()
        self.expect_error("empty", "adapt", compiled_step("neo"), tmp_path / "empty")
        self.expect_error("absent", "adapt", compiled_step("neo"), tmp_path / "absent")

    def test_digits_of_another_size(
        self, compiled_step: Callable[..., Path], digits: Path, tmp_path: Path
    ) -> None:
        shutil.copytree(digits, tmp_path / "digits")
        content = (digits / "digits.json").read_text()
        description = json.loads(content)
        description["images"]["shape"][1:3] = [16, 64]
        (tmp_path / "digits" / "digits.json").write_text(json.dumps(description))
        self.expect_error("expected images of 32x32x3", "digits", compiled_step("neo"), tmp_path / "digits")
        (tmp_path / "digits" / "digits.json").write_text(content)
        (tmp_path / "digits" / "labels.bin").write_bytes(b"0")
        self.expect_error("labels.bin", "digits", compiled_step("neo"), tmp_path / "digits")

    def test_wrong_arguments(self, compiled_step: Callable[..., Path], photos: Path) -> None:
        self.expect_error("STEP PHOTOS [BATCH]", "adapt")
        self.expect_error("0", "adapt", compiled_step("neo"), photos, "0")
        self.expect_error("--wrong", "verify", compiled_step("neo"), "--wrong")
        self.expect_error("--threads", "adapt", compiled_step("neo"), photos, "--threads", "some")
        assert self.run("adapt", compiled_step("neo"), photos, "--threads", "1").status == 0
