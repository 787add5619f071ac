"""The programs of examples/node, as their users call them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import pytest
from host_doubles import ROOT, HostChecks
from pixel_doubles import check_pixels

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


def test_pixels_are_those_of_pillow(tmp_path: Path) -> None:
    check_pixels(tmp_path, ["node", "--input-type=module", "-e", SCRIPT, str(FOLDER / "photos.mjs")])
