"""The programs of examples/node, as their users call them."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import fozo
import numpy as np
import pytest
from fozo.engine.bundle.preprocessing import INTERPOLATIONS, Preprocessing
from host_doubles import ROOT, HostChecks
from PIL import Image

FOLDER = ROOT / "examples" / "node"
if shutil.which("node") is None:
    pytest.skip("there is no node", allow_module_level=True)
if not (FOLDER / "node_modules" / "onnxruntime-node").is_dir():
    pytest.skip("packages are missing: make host-node", allow_module_level=True)

# Reads a list of jobs, and writes the pixels of each beside its file.
SCRIPT = """
import { readFileSync, writeFileSync } from "node:fs";
const { prepare } = await import(process.argv[1]);
for (const { file, width, height, recipe } of JSON.parse(readFileSync(process.argv[2]))) {
  const image = { pixels: new Uint8Array(readFileSync(file)), width, height };
  writeFileSync(`${file}.prepared`, prepare(image, recipe).pixels);
}
"""


class TestNode(HostChecks):
    programs: ClassVar[Mapping[str, Sequence[object]]] = {
        name: ["node", FOLDER / f"{name}.mjs"] for name in ("adapt", "verify", "digits")
    }


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
        ]
    return recipes


def test_pixels_are_those_of_pillow(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    jobs: list[dict[str, Any]] = []
    expected = []
    for index, ((width, height), recipe) in enumerate(list_recipes()):
        pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        pixels[: height // 2] = np.where(pixels[: height // 2] > 127, 255, 0)  # clips
        file = tmp_path / f"{index}"
        file.write_bytes(pixels.tobytes())
        jobs.append({"file": str(file), "width": width, "height": height, "recipe": vars(recipe)})
        expected.append(fozo.preprocess(Image.fromarray(pixels), recipe))
    (tmp_path / "jobs.json").write_text(json.dumps(jobs))
    command = [
        "node",
        "--input-type=module",
        "-e",
        SCRIPT,
        str(FOLDER / "photos.mjs"),
        str(tmp_path / "jobs.json"),
    ]
    subprocess.run(command, check=True, capture_output=True, text=True)
    for job, pixels in zip(jobs, expected, strict=True):
        prepared = np.fromfile(f"{job['file']}.prepared", np.uint8).reshape(pixels.shape)
        np.testing.assert_array_equal(prepared, pixels, str(job))
