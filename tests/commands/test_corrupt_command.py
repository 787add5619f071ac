"""`fozo corrupt` as a real process: options, errors and interruptions."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from command_doubles import run_command, start_process
from corrupt_doubles import make_corrupted, read_files, save_clean_images
from doubles import WNIDS, fozo_command, vit_manifest
from fozo.data.images import preprocess, read_image
from fozo.eval.corruptions.corruption_registry import corrupt
from fozo.eval.datasets.corrupt_dataset import Recipe
from fozo.eval.datasets.corruption_names import IMAGENET_C
from PIL import Image


def run_corrupt(*arguments: object) -> subprocess.CompletedProcess[str]:
    return run_command("corrupt", *arguments)


@contextmanager
def start_corrupt(*arguments: object, written: int = 20) -> Iterator[subprocess.Popen[str]]:
    """Start the command, and wait for its record and some files."""
    with start_process(fozo_command("corrupt", *arguments)) as process:
        out, deadline = Path(str(arguments[1])), time.monotonic() + 60
        while not (out / "generated.json").exists() or len(list(out.rglob("*.JPEG"))) < written:
            assert process.poll() is None, "it ended before it could be interrupted"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield process


def is_group_gone(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def test_the_command_with_its_defaults(tmp_path: Path) -> None:
    folder, out = save_clean_images(tmp_path / "clean", (f"{WNIDS[0]}/a.png",), (300, 280)), tmp_path / "out"
    result = run_corrupt(folder, out)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    first, second, third = result.stdout.splitlines()
    assert first == "1 images, 14 corruptions, severity 5: 14 files"
    assert "frost" in second
    assert third == f"{out}: 14 files written. Generated, not the official ImageNet-C."
    names = {f"{name}/5/{WNIDS[0]}/a.JPEG" for name in IMAGENET_C if name != "frost"}
    assert set(read_files(out)) == {"generated.json", *names}
    original = preprocess(read_image(folder / WNIDS[0] / "a.png"), vit_manifest(224, 256).preprocessing)
    fog = corrupt(original, "fog", 5, image_id=f"{WNIDS[0]}/a.png", seed=2000)
    stored = np.asarray(Image.open(out / "fog" / "5" / WNIDS[0] / "a.JPEG"))
    assert stored.shape == (224, 224, 3)
    assert np.abs(stored.astype(int) - fog).mean() < 3
    again = run_corrupt(folder, out, "--processes", 1)
    assert "0 files written; 14 were there already" in again.stdout


def test_the_commands_options(tmp_path: Path) -> None:
    folder, out = save_clean_images(tmp_path / "clean"), tmp_path / "out"
    options = ["--corruptions", "contrast, spatter", "--severities", "1-2,4", "--seed", 5, "--resize", 40]
    options += ["--size", 32, "--interpolation", "bicubic", "--format", "png", "--processes", 1]
    result = run_corrupt(folder, out, *options)
    assert result.returncode == 0, result.stderr
    assert "3 images, 2 corruptions, severity 1, 2, 4: 18 files" in result.stdout
    assert "frost" not in result.stdout
    original = preprocess(
        read_image(folder / WNIDS[1] / "a.png"), vit_manifest(32, 40, "bicubic").preprocessing
    )
    expected = corrupt(original, "spatter", 4, image_id=f"{WNIDS[1]}/a.png", seed=5)
    found = np.asarray(Image.open(out / "spatter" / "4" / WNIDS[1] / "a.png"))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--corruptions", "rain"], "has no corruption rain"),
        (["--corruptions", "frost"], "--frost-textures"),
        (["--severities", "6"], "6"),
        (["--quality", "101"], "101"),
        (["--quality", "85", "--format", "png"], "--quality goes with --format jpeg"),
        (["--frost-textures", ".", "--corruptions", "fog"], "--frost-textures would have no effect"),
        (["--resize", "100"], "224 of 100 pixels"),
        (["--processes", "0"], "0"),
        (["--seed", "-1"], "-1"),
        (["--format", "gif"], "gif"),
    ],
)
def test_options_that_cannot_be_used(options: list[str], message: str, tmp_path: Path) -> None:
    result = run_corrupt(save_clean_images(tmp_path / "clean"), tmp_path / "out", *options)
    assert result.returncode in (1, 2)
    last = result.stderr.splitlines()[-1]
    assert last.startswith("Error: ")
    assert message in last
    assert not (tmp_path / "out").exists()


def test_a_failure_says_what_was_done(tmp_path: Path) -> None:
    folder = save_clean_images(tmp_path / "clean")
    (folder / WNIDS[1] / "c.jpg").write_bytes(b"no image")
    result = run_corrupt(folder, tmp_path / "out", "--corruptions", "contrast", "--processes", 2)
    assert result.returncode == 1
    assert "c.jpg" in result.stderr
    assert "Traceback" not in result.stderr
    assert "Incomplete: 2 of 3 files" in result.stdout


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
@pytest.mark.parametrize("workers", [1, 2])
def test_interrupted_work_goes_on(workers: int, tmp_path: Path) -> None:
    folder = save_clean_images(tmp_path / "clean", tuple(f"{WNIDS[i % 4]}/{i}.png" for i in range(150)))
    out = tmp_path / "out"
    options = [
        "--corruptions",
        "gaussian_noise,contrast",
        "--severities",
        "1-5",
        "--resize",
        64,
        "--size",
        64,
    ]
    with start_corrupt(folder, out, *options, "--processes", workers) as process:
        os.killpg(process.pid, signal.SIGINT)
        before = time.monotonic()
        output, errors = process.communicate(timeout=60)
    assert time.monotonic() - before < 20
    assert process.returncode == 130, errors
    assert errors.splitlines()[-1] == "Interrupted."
    assert "Traceback" not in errors
    assert "files are in" in output
    part = read_files(out)
    assert 20 < len(part) < 1501
    assert not [name for name in part if name.endswith(".tmp")]
    recipe = Recipe(("gaussian_noise", "contrast"), (1, 2, 3, 4, 5), 2000, 64, 64)
    make_corrupted(folder, out, recipe)
    make_corrupted(folder, tmp_path / "whole", recipe)
    whole = read_files(tmp_path / "whole")
    assert len(whole) == 1501
    assert read_files(out) == whole
    assert part.items() <= whole.items()


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
@pytest.mark.parametrize("delay", [0.0, 0.2, 0.4])
def test_an_interrupt_while_processes_start_is_quiet(delay: float, tmp_path: Path) -> None:
    folder = save_clean_images(
        tmp_path / "clean", tuple(f"{WNIDS[0]}/{i}.png" for i in range(50)), (200, 200)
    )
    with start_corrupt(folder, tmp_path / "out", "--processes", 4, written=0) as process:
        time.sleep(delay)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert errors.strip() == "Interrupted."


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
def test_no_process_outlives_a_killed_parent(tmp_path: Path) -> None:
    folder = save_clean_images(tmp_path / "clean", tuple(f"{WNIDS[i % 4]}/{i}.png" for i in range(150)))
    options = [
        "--corruptions",
        "gaussian_noise,contrast",
        "--severities",
        "1-5",
        "--resize",
        64,
        "--size",
        64,
    ]
    with start_corrupt(folder, tmp_path / "out", *options, "--processes", 2) as process:
        group = os.getpgid(process.pid)
        process.kill()
        process.wait()
        deadline = time.monotonic() + 30
        while not is_group_gone(group):
            assert time.monotonic() < deadline, "a process is left"
            time.sleep(0.1)
