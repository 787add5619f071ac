"""Adapt to a folder of images with a compiled step. It needs onnxruntime, numpy and pillow, and no fozo.

python adapt.py STEP IMAGES
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image

BATCH = 8


def run(session: onnxruntime.InferenceSession, feeds: dict[str, Any]) -> dict[str, Any]:
    """Return the outputs of a session by name."""
    return dict(zip([output.name for output in session.get_outputs()], session.run(None, feeds), strict=True))


def prepare(path: Path, recipe: dict[str, Any]) -> Any:
    """Return an image as the graph reads it, uint8 `[H, W, 3]`: resized, then cropped in the middle.

    With a `frame`, it is made smaller in proportion, and black surrounds it by that many pixels.
    """
    image = Image.open(path)
    if image.mode.startswith("I"):  # 16 bits of grey: the upper 8 are kept
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    image = image.convert("RGB")
    frame = recipe["frame"]
    height, width = (length - 2 * frame for length in recipe["size"])
    resize = max(1, round(recipe["resize"] * min(height, width) / min(recipe["size"])))
    target = (resize, resize)
    if recipe["crop_mode"] == "center":  # the shorter side gets this length, the longer one is rounded down
        shorter = min(image.size)
        target = (resize * image.width // shorter, resize * image.height // shorter)
    image = image.resize(target, Image.Resampling[recipe["interpolation"].upper()])
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    cropped = np.asarray(image.crop((left, top, left + width, top + height)))
    return np.pad(cropped, ((frame, frame), (frame, frame), (0, 0)))


def main(folder: Path, images: Path) -> None:
    """Print the class of each image, batch by batch."""
    description = json.loads((folder / "step.json").read_text(encoding="utf-8"))
    step = onnxruntime.InferenceSession(folder / "step.onnx")
    state = run(onnxruntime.InferenceSession(folder / "init.onnx"), {})
    paths = sorted(images.iterdir())
    fixed = description["images"]["shape"][0]  # a number, if the step is compiled for it, or else "N"
    size = fixed if isinstance(fixed, int) else BATCH
    for start in range(0, len(paths), size):
        batch = paths[start : start + size]
        pixels = np.stack([prepare(path, description["preprocessing"]) for path in batch])
        if isinstance(fixed, int):  # the last batch may have fewer: copies fill it up
            pixels = np.resize(pixels, (fixed, *pixels.shape[1:]))
        outputs = run(step, {"images": pixels, **state})
        state = {entry["input"]: outputs[entry["output"]] for entry in description["state"]}
        if not outputs["valid"]:
            print(f"batch at {batch[0].name}: nothing was learnt from it", file=sys.stderr)
        for path, label in zip(batch, outputs["logits"][: len(batch)].argmax(1), strict=True):
            print(path.name, description["classes"][label] if description["classes"] else label)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
