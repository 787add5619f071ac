"""Commands started as real processes, and their input: import with `from command_doubles import …`."""

from __future__ import annotations

import json
import struct
import subprocess
import threading
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from doubles import accept_interrupts, child_environment, run_fozo
from PIL import Image

QUICK = ["--dataset", "demo", "--subset", "128", "--corruptions", "gaussian_noise,contrast,clean"]
ENVIRONMENT = child_environment(OMP_NUM_THREADS="2", PYTHONWARNINGS="default")


def run_command(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run `fozo` to its end, with Python's warnings on standard error."""
    return run_fozo(*arguments, env=ENVIRONMENT, cwd=cwd)


@contextmanager
def start_process(command: Sequence[str], cwd: Path | None = None) -> Iterator[subprocess.Popen[str]]:
    """Start a process in a session of its own, as in a terminal; kill it at the end, or after 100 seconds."""
    with subprocess.Popen(
        command,
        env={**ENVIRONMENT, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=cwd,
        preexec_fn=accept_interrupts,
    ) as process:
        watchdog = threading.Timer(100, process.kill)
        watchdog.start()
        try:
            yield process
        finally:
            watchdog.cancel()
            process.kill()


def succeeds(*arguments: object, cwd: Path | None = None) -> str:
    result = run_command(*arguments, cwd=cwd)
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    assert "Warning" not in result.stderr
    return result.stdout


def fails(*arguments: object, cwd: Path | None = None, partial: bool = False) -> str:
    """Return the message of a run that must fail with one line on standard error."""
    result = run_command(*arguments, cwd=cwd)
    assert result.returncode in (1, 2), (result.returncode, result.stdout, result.stderr)
    assert "Traceback" not in result.stderr
    lines = result.stderr.splitlines()
    if lines and lines[0].startswith("Usage:"):
        lines = lines[-1:]  # click: usage, a hint, an empty line, and the error
    if partial:
        assert "Incomplete: what was measured so far is in" in result.stdout
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("Error: "), result.stderr
    return lines[0]


def read_json(path: Path) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    return content


def extract_counts(document: dict[str, Any]) -> dict[str, Any]:
    """Return the raw counts of every domain and method, which do not depend on how the work is split."""
    return {
        domain["name"]: {
            label: (part["images"], part["correct"], part["correct_top5"], part["bins"]["images"])
            for label, part in domain["methods"].items()
        }
        for domain in document["runs"][0]["domains"]
    }


def save_noise_images(folder: Path, count: int = 20) -> Path:
    """Save a folder of classes with noise images, and return it."""
    generator = np.random.default_rng(0)
    for i in range(count):
        path = folder / str(i % 10) / f"{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (40, 36, 3), dtype=np.uint8)).save(path)
    return folder


def save_bomb(path: Path) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    )


def save_wrong_classes(folder: Path) -> Path:
    (folder / "cat").mkdir(parents=True)
    Image.new("RGB", (32, 32)).save(folder / "cat" / "1.png")
    return folder
