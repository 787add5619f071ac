"""Helpers for the tests of predictions."""

from __future__ import annotations

import csv
import io
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fozo
import pytest
from click.testing import CliRunner
from doubles import child_environment, run_fozo
from fozo.cli import cli
from fozo.engine.model import ImageArray
from PIL import Image

ENVIRONMENT = child_environment(PYTHONWARNINGS="default")

DEFAULT = "pizo:domains=16"  # the method of `fozo predict`

CLASSES = 20

POSIX = pytest.mark.skipif(os.name != "posix", reason="signals, and names of files that are any bytes")

RandomImages = Callable[..., ImageArray]


def run(*arguments: object, input: bytes = b"") -> str:
    """Return standard output of a run inside this process; raise errors instead of reporting them."""
    result = CliRunner().invoke(cli, ["predict", *map(str, arguments), "--quiet"], input=input)
    if result.exception is not None:
        raise result.exception
    assert result.exit_code == 0
    return result.stdout


def spawned(*arguments: object, **options: Any) -> subprocess.CompletedProcess[Any]:
    return run_fozo("predict", *arguments, env=ENVIRONMENT, text=False, **options)


def table(source: str | Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file, or of its text."""
    if isinstance(source, str):
        return list(csv.DictReader(io.StringIO(source, newline="")))
    with source.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
        return list(csv.DictReader(stream))


def save(images: ImageArray, folder: Path, start: int = 0) -> list[Path]:
    """Images as files in the order of their names."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{start + index:03d}.png" for index in range(len(images))]
    for image, path in zip(images, paths, strict=True):
        Image.fromarray(image).save(path)
    return paths


def png(image: ImageArray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


Stepped = Callable[..., tuple[Any, fozo.Adapter]]


def agree(rows: list[dict[str, str]], probabilities: Any) -> None:
    """Confidences to the bit, and classes."""
    assert [float(row["confidence"]) for row in rows] == probabilities.max(axis=1).tolist()
    assert [int(row["class_index"]) for row in rows] == probabilities.argmax(axis=1).tolist()
