"""What tunables cost that are not used: two bundles of one model, with and without them, in turn.

Prints the time of a batch without tunables on both, and with norms for the batch and for each image, as
ratios of medians from interleaved rounds.

    fozo export --model vit_base_patch16_224 --random-weights --norms none --out plain
    fozo export --model vit_base_patch16_224 --random-weights --out tunable
    python bench/tunables.py plain tunable --batch-size 64
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
from fozo.engine.runtime.network import Network


def main() -> None:
    """Measures, and prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("plain", type=Path, help="bundle without tunable norms")
    parser.add_argument("tunable", type=Path, help="bundle of the same model with them")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    opened = (
        Network.open(path, options.precision, workers=options.workers)
        for path in (options.plain, options.tunable)
    )
    plain, tunable = opened
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (options.batch_size, *plain.image_size, 3), dtype=np.uint8)
    shape = (len(tunable.info.norms), 2, tunable.info.width)
    norms = generator.normal(0, 0.02, (options.batch_size, *shape)).astype(np.float32)
    cases = {
        "no tunable norms": lambda: plain(images),
        "tunable, none given": lambda: tunable(images),
        "norms for the batch": lambda: tunable(images, norms=norms[:1]),
        "norms for each image": lambda: tunable(images, norms=norms),
    }
    for run in cases.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for index in range(options.rounds):
        for name in rotated(list(cases), index):
            begin = time.perf_counter()
            cases[name]()
            seconds[name].append(time.perf_counter() - begin)
    base = seconds["no tunable norms"]
    print("| | ms per image | ratio, median of rounds |\n|---|---:|---:|")
    for name, found in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(found, base, strict=True))
        print(f"| {name} | {1e3 * statistics.median(found) / len(images):.2f} | {ratio:.3f} |")


def rotated(names: list[str], index: int) -> list[str]:
    """Each is first in its turn: what ran before leaves its mark on caches and clocks."""
    start = index % len(names)
    return names[start:] + names[:start]


if __name__ == "__main__":
    main()
