"""Adapt to a stream of frames; when started again, go on with what was learnt.

    python camera_loop.py BUNDLE frames/      the images of a folder, in the order of their names
    python camera_loop.py BUNDLE 0            a camera; needs `pip install opencv-python`

The state is a small file that is replaced atomically, so it survives a power cut. `fozo predict --watch` is
the complete program for a folder that a camera writes into.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import fozo
import numpy as np
from PIL import Image

BATCH_SIZE = 8
SAVE_EVERY = 50  # batches


def read_folder(folder: Path) -> Iterator[Image.Image]:
    """Yield the images of a folder in the order of their names."""
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in (".jpg", ".jpeg", ".png"):
            yield fozo.read_image(path)


def read_camera(number: int) -> Iterator[Image.Image]:
    """Yield the frames of a camera until it stops."""
    import cv2

    camera = cv2.VideoCapture(number)
    try:
        while (frame := camera.read()[1]) is not None:
            yield Image.fromarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
    finally:
        camera.release()


def run(bundle: Path, frames: str, state: Path) -> None:
    """Print the class of every frame, and save the state of the adaptation on the way."""
    manifest = fozo.Bundle.open(bundle).manifest
    names = manifest.class_names or manifest.class_ids or [str(index) for index in range(manifest.classes)]
    adapter = fozo.Adapter.open(bundle, method="pizo", domains=16)
    if state.exists():
        adapter.load(state)

    stream = read_camera(int(frames)) if frames.isdecimal() else read_folder(Path(frames))
    try:
        while batch := list(itertools.islice(stream, BATCH_SIZE)):
            images = np.stack([fozo.preprocess(image, manifest.preprocessing) for image in batch])
            prediction = adapter.step(images)
            for probabilities in prediction.probabilities:
                best = int(probabilities.argmax())
                print(f"{names[best]}\t{probabilities[best]:.3f}", flush=True)
            if adapter.state.step % SAVE_EVERY == 0:
                adapter.save(state)
    finally:
        adapter.save(state)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("bundle", type=Path, help="folder made by fozo export, of a vision transformer")
    parser.add_argument("frames", help="folder of images, or number of a camera")
    parser.add_argument("--state", type=Path, default=Path("state.npz"), help="file of the state")
    arguments = parser.parse_args()
    try:
        run(arguments.bundle, arguments.frames, arguments.state)
    except fozo.FozoError as error:
        sys.exit(f"camera_loop: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
