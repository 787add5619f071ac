"""The program of examples/java, as its users call it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from host_doubles import ROOT, HostChecks
from pixel_doubles import check_pixels

FOLDER = ROOT / "examples" / "java"
PACKAGES = FOLDER / "target" / "lib"
if shutil.which("javac") is None:
    pytest.skip("there is no javac", allow_module_level=True)
if not list(PACKAGES.glob("onnxruntime-*.jar")):
    pytest.skip("packages are missing: make host-java", allow_module_level=True)

# Reads a list of jobs, and writes the pixels of each beside its file.
PREPARE = """
package fozo.step;

import com.google.gson.Gson;
import java.nio.file.Files;
import java.nio.file.Path;

public final class Prepare {
  record Job(String file, int width, int height, Recipe recipe) {}

  public static void main(String[] arguments) throws Exception {
    Job[] jobs = new Gson().fromJson(Files.readString(Path.of(arguments[0])), Job[].class);
    for (Job job : jobs) {
      Image image = new Image(Files.readAllBytes(Path.of(job.file())), job.width(), job.height());
      Files.write(Path.of(job.file() + ".prepared"), job.recipe().prepare(image).pixels());
    }
  }
}
"""


@pytest.fixture(scope="module")
def class_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return where Java finds the program, which is built in a temporary folder, and its packages."""
    folder = tmp_path_factory.mktemp("java")
    (folder / "Prepare.java").write_text(PREPARE)
    sources = [*FOLDER.rglob("*.java"), folder / "Prepare.java"]
    command = ["javac", "-Xlint:all", "-Werror", "-d", folder / "classes", "-cp", f"{PACKAGES}/*", *sources]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return f"{folder / 'classes'}{os.pathsep}{PACKAGES}/*"


class TestJava(HostChecks):
    # The package's ONNX Runtime is another version than Python's: last bits differ, and int8 magnifies them.
    int8_tolerance = "0.5"

    @pytest.fixture(autouse=True)
    def _use_classes(self, class_path: str) -> None:
        command = ["java", "-cp", class_path, "fozo.step.Host"]
        self.programs = {name: [*command, name] for name in ("adapt", "verify", "digits")}

    def test_an_unknown_program(self) -> None:
        self.programs = {"adopt": [*self.programs["adapt"][:-1], "adopt"]}
        self.expect_error("expected adapt, verify or digits", "adopt")


def test_pixels_are_those_of_pillow(class_path: str, tmp_path: Path) -> None:
    check_pixels(tmp_path, ["java", "-cp", class_path, "fozo.step.Prepare"])
