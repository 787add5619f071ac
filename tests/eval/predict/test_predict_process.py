"""Predictions by real processes: signals, pipes and full disks."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from doubles import accept_interrupts, fozo_command
from fozo.cli import cli
from fozo.eval.predict.prediction_row import Row
from fozo.eval.predict.prediction_writer import PredictionWriter
from predict_doubles import (
    ENVIRONMENT,
    POSIX,
    RandomImages,
    Stepped,
    agree,
    save,
    spawned,
    table,
)

# --- real processes ---


def test_summary_and_errors_of_a_process(
    bundle_path: Path, random_images: RandomImages, tmp_path: Path
) -> None:
    save(random_images(3), tmp_path / "images")
    (tmp_path / "images" / "001.png").write_bytes(b"no image")
    state = tmp_path / "state.npz"
    arguments = [bundle_path, tmp_path / "images", "--state", state]
    result = spawned(*arguments, "--on-error", "skip")
    assert result.returncode == 0
    assert len(result.stdout.splitlines()) == 4
    (line,) = result.stderr.decode().splitlines()
    for words in (
        "3 images",
        "1 unreadable",
        "images/s",
        f"state: {state}",
    ):
        assert words in line
    result = spawned(*arguments)
    assert result.returncode == 1
    (line,) = result.stderr.decode().splitlines()
    assert line.startswith("Error: ")
    assert "001.png" in line


@POSIX
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_a_stream_with_its_state_saved(
    number: signal.Signals,
    code: int,
    bundle_path: Path,
    random_images: RandomImages,
    stepped: Stepped,
    tmp_path: Path,
) -> None:
    images = random_images(6)
    save(images, tmp_path / "camera")
    state, out = tmp_path / "state.npz", tmp_path / "out.csv"
    arguments = [bundle_path, "--watch", tmp_path / "camera", "--batch-size", 4, "--poll", 0.05]
    arguments += ["--max-wait", 0.1, "--state", state, "--out", out]
    for path in (tmp_path / "camera").iterdir():
        os.utime(path, (1000, 1000))
    with subprocess.Popen(
        fozo_command("predict", *arguments),
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        preexec_fn=accept_interrupts,
    ) as process:
        watchdog = threading.Timer(100, process.kill)
        watchdog.start()
        while process.poll() is None and (not out.exists() or len(out.read_bytes().splitlines()) < 7):
            time.sleep(0.02)
        assert process.poll() is None  # rows are there while it runs
        assert not state.exists()
        process.send_signal(number)
        _, errors = process.communicate()
        watchdog.cancel()
    assert process.returncode == code, errors
    assert b"Traceback" not in errors
    assert b"6 images, 0 unreadable" in errors
    expected, reference = stepped(images, 4)
    agree(table(out), expected)
    reference.save(tmp_path / "expected.npz")
    assert state.read_bytes() == (tmp_path / "expected.npz").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_an_interrupt_within_a_batch(
    bundle_path: Path,
    random_images: RandomImages,
    stepped: Stepped,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It comes after the third batch is learnt and before its rows are written: it is in neither."""
    images = random_images(12)
    save(images, tmp_path / "images")
    state, out = tmp_path / "state.npz", tmp_path / "out.csv"
    adding, added = PredictionWriter.add, 0

    def add(self: Any, row: Row) -> None:
        nonlocal added
        added += 1
        if added == 10:
            raise KeyboardInterrupt
        adding(self, row)

    monkeypatch.setattr(PredictionWriter, "add", add)
    arguments = ["predict", bundle_path, tmp_path / "images", "--batch-size", 4]
    result = CliRunner().invoke(cli, [*map(str, [*arguments, "--state", state, "--out", out])])
    assert result.exit_code != 0
    agree(table(out), stepped(images[:8], 4)[0])
    stepped(images[:8], 4)[1].save(tmp_path / "expected.npz")
    assert state.read_bytes() == (tmp_path / "expected.npz").read_bytes()


@POSIX
def test_a_reader_that_has_enough(bundle_path: Path, random_images: RandomImages, tmp_path: Path) -> None:
    """As in `fozo predict - | head -2`, with a list that never ends."""
    (path,) = save(random_images(1), tmp_path / "images")
    state = tmp_path / "state.npz"
    arguments = [bundle_path, "-", "--batch-size", 1, "--state", state]
    with (
        subprocess.Popen(["yes", str(path)], stdout=subprocess.PIPE) as source,
        subprocess.Popen(
            fozo_command("predict", *arguments),
            env=ENVIRONMENT,
            stdin=source.stdout,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process,
    ):
        watchdog = threading.Timer(100, process.kill)
        watchdog.start()
        assert source.stdout is not None
        assert process.stdout is not None
        assert process.stderr is not None
        source.stdout.close()
        assert process.stdout.readline().startswith(b"path,")
        assert process.stdout.readline().startswith(os.fsencode(path))
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0
        watchdog.cancel()
    assert state.exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk(bundle_path: Path, random_images: RandomImages, tmp_path: Path) -> None:
    save(random_images(1), tmp_path / "images")
    command = fozo_command("predict", bundle_path, tmp_path / "images")
    with Path("/dev/full").open("wb") as full:
        result = subprocess.run(command, env=ENVIRONMENT, stdout=full, stderr=subprocess.PIPE, timeout=100)
    assert result.returncode == 1
    (line,) = result.stderr.decode().splitlines()
    assert line.startswith("Error: cannot write standard output: No space left")
