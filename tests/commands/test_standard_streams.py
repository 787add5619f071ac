"""Commands whose standard output or error is closed, full, or read no further."""

from __future__ import annotations

import os
import pty
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from bundle_doubles import graph, make
from command_doubles import ENVIRONMENT
from fozo.commands.standard_streams import LenientStream, lenient_streams
from fozo.engine.files import claim_file
from PIL import Image

pytestmark = pytest.mark.skipif(os.name != "posix", reason="redirects as a shell does")
COLOURS = graph(images="uint8[N,4,4,3] images")


def shell_words(arguments: list[object]) -> list[str]:
    return [sys.executable, "-m", "fozo", *map(str, arguments)]


def shell(arguments: list[object], redirection: str) -> subprocess.CompletedProcess[str]:
    """Run `fozo` in a shell with its streams redirected."""
    command = shlex.join(shell_words(arguments))
    return subprocess.run(
        ["bash", "-c", f"{command} {redirection}; exit ${{PIPESTATUS[0]}}"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for index in range(12):
        path = tmp_path / "images" / "abcde"[index % 5] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (20 * index, 0, 0)).save(path)
    return tmp_path / "images"


def adapt(bundle: Path, images: Path, out: Path) -> list[object]:
    return ["adapt", bundle, "--dataset", "imagefolder", "--data", images, "-m", "no_adapt", "--out", out]


@pytest.mark.parametrize(
    ("redirection", "code", "message"),
    [
        ("> /dev/full", 1, "Error: cannot write standard output: No space left on device"),
        (">&-", 0, ""),
        ("2>&-", 0, ""),
        ("2> /dev/full", 0, ""),
        ("| head -n 1 > /dev/null", 1, ""),
    ],
)
def test_a_broken_stream_costs_no_results(
    redirection: str, code: int, message: str, images: Path, tmp_path: Path
) -> None:
    bundle, out = make(tmp_path, COLOURS).path, tmp_path / "results.json"
    result = shell(adapt(bundle, images, out), redirection)
    assert '"complete": true' in out.read_text(encoding="utf-8")
    assert result.stderr.strip() == message
    if "head" not in redirection:  # whether the reader ends before the writer does is left to chance
        assert result.returncode == code


def test_inspect_on_a_full_disk(tmp_path: Path) -> None:
    result = shell(["inspect", make(tmp_path).path], "> /dev/full")
    assert (result.returncode, result.stderr.strip()) == (
        1,
        "Error: cannot write standard output: No space left on device",
    )


def test_an_error_with_closed_streams_has_its_exit_code(tmp_path: Path) -> None:
    assert shell(["inspect", tmp_path / "nothing"], ">&- 2>&-").returncode == 1


def test_a_stream_drops_what_cannot_be_written_and_remembers_why() -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:  # noqa: PTH123
        stream = LenientStream(full)
        assert stream.write("hello") == 5
        assert stream.error is None  # it is in the buffer
        stream.flush()
        stream.write("more")
        stream.flush()
        assert stream.error is not None and stream.error.strerror == "No space left on device"
        assert stream.encoding == "utf-8"  # everything else is the stream's


def test_streams_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    before = sys.stderr
    with lenient_streams():
        assert not sys.stdout.isatty()
        assert sys.stderr is not before
    assert (sys.stdout, sys.stderr) == (None, before)


def test_predictions_on_a_terminal_hold_no_commands(tmp_path: Path) -> None:
    """A file name that clears the screen is shown with an escape; a pipe gets it as it is."""
    bundle = make(tmp_path, COLOURS).path
    Image.new("RGB", (4, 4)).save(tmp_path / "a\x1b[2Jb.png")
    arguments = shell_words(["predict", bundle, tmp_path / "a\x1b[2Jb.png", "-m", "no_adapt", "--quiet"])
    ours, theirs = pty.openpty()
    with subprocess.Popen(arguments, env=ENVIRONMENT, stdout=theirs, stderr=subprocess.PIPE) as process:
        os.close(theirs)
        text = b""
        while b"png" not in text and (block := os.read(ours, 1000)):
            text += block
        process.communicate()
    assert rb"a\x1b[2Jb.png" in text and b"\x1b" not in text
    piped = subprocess.run(arguments, env=ENVIRONMENT, capture_output=True, timeout=300, check=True)
    assert b"a\x1b[2Jb.png" in piped.stdout


def test_predictions_go_to_devices(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    arguments = ["predict", make(tmp_path, COLOURS).path, tmp_path / "a.png", "-m", "no_adapt", "--quiet"]
    result = shell([*arguments, "--out", "/dev/null", "--overwrite"], "")
    assert (result.returncode, result.stderr) == (0, "")
    assert Path("/dev/null").is_char_device() and not Path("/dev/.null.lock").exists()


def test_two_processes_do_not_write_the_same_predictions(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    arguments = ["predict", make(tmp_path, COLOURS).path, tmp_path / "a.png", "-m", "shift_origin"]
    for option, name in (("--out", "o.csv"), ("--state", "s.npz")):
        with claim_file(tmp_path / name):
            result = shell([*arguments, option, tmp_path / name], "")
        assert result.returncode == 1
        assert f"another process is writing {tmp_path / name}; wait" in result.stderr
    assert not (tmp_path / "s.npz").exists()


def test_methods_are_listed_without_docstrings() -> None:
    command = [sys.executable, "-OO", "-m", "fozo", "methods"]
    result = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert all(f"\n{name} " in result.stdout for name in ("fozo", "pizo", "tent"))
