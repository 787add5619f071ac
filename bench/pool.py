"""Compares one step of a pool with the same streams stepped one after the other.

    python bench/pool.py BUNDLE --precision int8 --streams 16 --batch 4 --method fozo

Both see the same images in rounds that take turns, on the same session and threads, and must answer the same
bits. Printed are medians over the rounds, per image: wall-clock time, and CPU time of the whole process.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from fozo.engine.registry import METHODS, method
from fozo.engine.runtime.network import Network
from fozo.engine.streams.adapter import Adapter
from fozo.engine.streams.pool import Pool

SEED = 0


def main() -> None:
    """Steps both ways in turn, checks that they agree, and prints the table as Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--method", default="fozo", choices=METHODS)
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--batch", type=int, nargs="*", default=[1, 4], help="images per stream")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--workers", type=int)
    options = parser.parse_args()
    with Network.open(options.bundle, options.precision, workers=options.workers) as network:
        print(
            f"{network.info.name} {options.precision}, {options.method}, {options.streams} streams, "
            f"{network.workers} workers, micro-batch {network.micro_batch}, {options.rounds} rounds; "
            f"load of the machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors\n"
        )
        print("| batch | separate ms | pool ms | ratio | separate CPU ms | pool CPU ms | ratio |")
        print("|---|---|---|---|---|---|---|")
        for batch in options.batch:
            separate, pooled = _measure(network, options.method, options.streams, batch, options.rounds)
            pairs = zip(separate, pooled, strict=True)
            cells = [cell for alone, together in pairs for cell in (alone, together, together / alone)]
            print(f"| {batch} | {' | '.join(f'{cell:.2f}' for cell in cells)} |", flush=True)


def _measure(network: Network, name: str, streams: int, batch: int, rounds: int) -> tuple[Any, Any]:
    """Medians of wall-clock and CPU time in ms per image: separate, pooled."""
    alone = [Adapter(network, method(name), seed) for seed in range(streams)]
    pool = Pool(network)
    for seed in range(streams):
        pool.open(seed, name, seed=seed)
    generator = np.random.default_rng(SEED)
    shape = (streams, batch, *network.image_size, 3)
    times: tuple[list[Any], list[Any]] = ([], [])
    for turn in range(-1, rounds):  # the first round warms up
        images = generator.integers(0, 256, shape, dtype=np.uint8)
        ways: list[Callable[[], list[Any]]] = [
            lambda images=images: [adapter.step(own) for adapter, own in zip(alone, images, strict=True)],
            lambda images=images: list(pool.step(dict(enumerate(images))).values()),
        ]
        answers = {}
        for way in (0, 1) if turn % 2 else (1, 0):
            wall, cpu = time.perf_counter(), time.process_time()
            answers[way] = ways[way]()
            if turn >= 0:
                times[way].append((time.perf_counter() - wall, time.process_time() - cpu))
        for left, right in zip(answers[0], answers[1], strict=True):
            if left.logits.tobytes() != right.logits.tobytes():
                raise SystemExit("the pool answers other bits than separate streams")
    separate, pooled = (np.median(each, axis=0) * 1e3 / (streams * batch) for each in times)
    return separate, pooled


if __name__ == "__main__":
    main()
