"""Measures what streaming from files costs: time beside the steps themselves, and memory against length.

Runs `fozo adapt` on a folder and the same steps on arrays that are already in memory, in turns, each in a
process of its own; then streams short and long folders of tiny images and compares peaks of memory:

    python bench/stream.py BUNDLE IMAGES --precision int8 -m no_adapt -m fozo
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.registry import parse_methods
from fozo.engine.runtime.network import Network
from fozo.engine.streams.adapter import Adapter
from fozo.eval.datasets.image_folder import load_image_folder
from fozo.eval.streaming.stream import shuffle_order
from PIL import Image

BATCH = 64
SEED = 2000


def in_memory(bundle: Path, folder: Path, precision: str, method: str, count: int) -> float:
    """Seconds that the steps take on arrays."""
    opened = Bundle.open(bundle)
    domain = load_image_folder(folder, opened.manifest, "imagefolder")
    order = shuffle_order(len(domain), domain.name, SEED)[:count]
    images = np.stack([domain.load(int(i)) for i in order])
    with Network.open(opened, precision) as network:
        adapter = Adapter(network, parse_methods([method])[method], SEED)
        adapter.step(images[:BATCH])
        adapter.reset()
        begin = time.perf_counter()
        for start in range(0, count, BATCH):
            adapter.step(images[start : start + BATCH])
        return time.perf_counter() - begin


def from_files(bundle: Path, folder: Path, precision: str, method: str, count: int) -> tuple[float, int]:
    """Seconds of the whole domain as `fozo adapt` reports them, and the peak of memory of its process."""
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "results.json"
        arguments = ["adapt", str(bundle), "--dataset", "imagefolder", "--data", str(folder), "-m", method]
        arguments += ["--precision", precision, "--out", str(out), "--quiet", "--seed", str(SEED)]
        arguments += ["--subset", str(count)] if count else []
        subprocess.run([sys.executable, "-m", "fozo.cli", *arguments], check=True, stdout=subprocess.DEVNULL)
        (domain,) = json.loads(out.read_text())["runs"][0]["domains"]
        return domain["seconds"], domain["methods"][method]["peak_bytes"]


def tiny(folder: Path, manifest_ids: tuple[str, ...] | None, count: int) -> Path:
    """A folder with so many images of 32 x 32 pixels, over all classes."""
    generator = np.random.default_rng(0)
    names = manifest_ids or ("0",)
    content = generator.integers(0, 256, (16, 32, 32, 3), dtype=np.uint8)
    for index in range(count):
        place = folder / names[index % len(names)]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(content[index % 16]).save(place / f"image_{index:08d}.png", compress_level=0)
    return folder


def main() -> None:
    """Prints both comparisons as Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("folder", type=Path, metavar="IMAGES", help="images by class folder")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("-m", "--method", action="append", dest="methods", required=True)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--small-bundle", type=Path, help="one that is fast, for the streams of tiny images")
    parser.add_argument("--lengths", type=int, nargs="*", default=[5_000, 50_000])
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    shared = (options.bundle, options.folder, options.precision)
    if options.child:
        print(in_memory(*shared, options.child[0], int(options.child[1])))
        return
    print("| method | s from files | s in memory | ratio |\n|---|---:|---:|---:|")
    for method in options.methods:
        pairs = []
        for _ in range(options.rounds):
            child = [sys.executable, __file__, *map(str, shared[:2]), "--precision", options.precision]
            child += ["-m", method, "--child", method, str(options.images)]
            done = subprocess.run(child, check=True, capture_output=True, text=True, env=os.environ)
            pairs.append((from_files(*shared, method, options.images)[0], float(done.stdout)))
        files, memory = (statistics.median(side) for side in zip(*pairs, strict=True))
        ratio = statistics.median(left / right for left, right in pairs)
        print(f"| {method} | {files:.2f} | {memory:.2f} | {ratio:.3f} |", flush=True)
    if options.small_bundle:
        print("\n| images | peak MB |\n|---:|---:|")
        ids = Bundle.open(options.small_bundle).manifest.class_ids
        for count in options.lengths:
            with tempfile.TemporaryDirectory() as place:
                folder = tiny(Path(place), ids, count)
                peak = from_files(options.small_bundle, folder, "fp32", "no_adapt", 0)[1]
            print(f"| {count} | {peak / 1e6:.1f} |", flush=True)


if __name__ == "__main__":
    main()
