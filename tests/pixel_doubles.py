"""Pixels that programs in other languages prepare, compared with fozo's."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import fozo
import numpy as np
from fozo.engine.bundle.preprocessing import INTERPOLATIONS, Preprocessing
from numpy.typing import NDArray
from PIL import Image


def list_recipes() -> list[tuple[tuple[int, int], Preprocessing]]:
    """Return sizes of images (width, height), and recipes for them."""
    recipes = []
    for interpolation in INTERPOLATIONS:
        recipes += [
            ((500, 375), Preprocessing((224, 224), 256, interpolation)),
            ((375, 501), Preprocessing((224, 220), 233, interpolation, "squash")),
            ((31, 90), Preprocessing((64, 64), 48, interpolation, frame=3)),
            ((21, 18), Preprocessing((50, 64), 40, interpolation, "squash")),
            ((640, 480), Preprocessing((224, 224), 224, interpolation, "squash")),
            ((91, 200), Preprocessing((32, 32), 32, interpolation)),  # columns are filtered before rows
        ]
    return recipes


def check_pixels(folder: Path, command: Sequence[str]) -> None:
    """Check that a program prepares images as fozo does, to the bit.

    Args:
        folder: to write to.
        command: takes a JSON file, a list of objects with `file`, `width`, `height` and `recipe`, and writes
            what it makes of the pixels in each file to a file of that name and `.prepared`.
    """
    generator = np.random.default_rng(0)
    jobs: list[dict[str, Any]] = []
    expected = []
    for index, ((width, height), recipe) in enumerate(list_recipes()):
        pixels = draw_pixels(generator, width, height)
        file = folder / f"{index}"
        file.write_bytes(pixels.tobytes())
        jobs.append({"file": str(file), "width": width, "height": height, "recipe": vars(recipe)})
        expected.append(fozo.preprocess(Image.fromarray(pixels), recipe))
    (folder / "jobs.json").write_text(json.dumps(jobs))
    result = subprocess.run([*command, str(folder / "jobs.json")], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    for job, image in zip(jobs, expected, strict=True):
        prepared = np.fromfile(f"{job['file']}.prepared", np.uint8).reshape(image.shape)
        np.testing.assert_array_equal(prepared, image, str(job))


def check_prepared_photos(
    step: Path, interpolation: str, prepare: Callable[[Path, NDArray[np.uint8]], NDArray[np.uint8]]
) -> None:
    """Check that a program prepares photos by the recipe of a step as fozo does, to the bit.

    Args:
        step: folder of a compiled step, whose description is changed.
        interpolation: of the recipes.
        prepare: returns what the program makes of pixels, given the folder and the pixels.
    """
    description = json.loads((step / "step.json").read_text())
    generator = np.random.default_rng(0)
    for (width, height), recipe in (
        ((500, 375), Preprocessing((224, 224), 256, interpolation)),
        ((375, 501), Preprocessing((224, 221), 233, interpolation, "squash")),
        ((31, 90), Preprocessing((64, 64), 48, interpolation, frame=3)),
        ((21, 18), Preprocessing((50, 64), 40, interpolation, "squash")),
        ((224, 224), Preprocessing((224, 224), 224, interpolation)),
        ((91, 200), Preprocessing((32, 32), 32, interpolation)),  # columns are filtered before rows
    ):
        pixels = draw_pixels(generator, width, height)
        description["preprocessing"] = vars(recipe)
        description["images"]["shape"][1:3] = recipe.size
        (step / "step.json").write_text(json.dumps(description))
        expected = fozo.preprocess(Image.fromarray(pixels), recipe)
        np.testing.assert_array_equal(prepare(step, pixels), expected, str(recipe))


def draw_pixels(generator: np.random.Generator, width: int, height: int) -> NDArray[np.uint8]:
    """Return a random image, uint8 `[H, W, 3]`, whose upper half clips when it is resized."""
    pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
    pixels[: height // 2] = np.where(pixels[: height // 2] > 127, 255, 0)
    return pixels
