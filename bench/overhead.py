"""What a method computes itself, beside its forwards: its arithmetic alone, as a share of its whole step.

The forwards of a method's steps are answered from memory, so what is left is its own work; one forward of
the real network is timed in turn with it. Prints a Markdown table.

    python bench/overhead.py BUNDLE --precision int8 --batch-size 64
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from fozo.engine.errors import BundleError
from fozo.engine.model import FloatArray, ImageArray, ModelInfo, Outputs, SourceStatistics, Tunables
from fozo.engine.registry import METHODS, parse_methods
from fozo.engine.runtime.network import Network
from fozo.engine.streams.adapter import Adapter

ANSWERS = 8


class Recorded:
    """Answers from memory, a few recorded ones in turn, and counts."""

    def __init__(self, info: ModelInfo, answers: Sequence[Outputs]) -> None:
        self.info, self.answers, self.forwards = info, answers, 0

    def __call__(self, images: ImageArray, **tunables: FloatArray) -> Outputs:
        """The next answer."""
        self.forwards += 1
        return self.answers[self.forwards % len(self.answers)]

    def candidates(self, images: ImageArray, tunables: Sequence[Tunables]) -> list[Outputs]:
        """The next answers."""
        return [self(images) for _ in tunables]


def main() -> None:
    """Measures every method and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("-m", "--method", action="append", metavar="SPEC", dest="methods")
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with Network.open(options.bundle, options.precision) as network:
        images = np.random.default_rng(0).integers(
            0, 256, (options.batch_size, *network.image_size, 3), dtype=np.uint8
        )
        source, answers = _recorded(network, images)
        info = replace(network.info, source=source)
        print(f"one forward of {options.batch_size} images: ", end="", flush=True)
        forward = statistics.median(_seconds(lambda: network(images)) for _ in range(options.rounds))
        print(f"{1e3 * forward:.0f} ms\n\n| method | forwards | own ms | share of the step |")
        print("|---|---:|---:|---:|")
        for label, chosen in parse_methods(options.methods or list(METHODS)).items():
            recorded = Recorded(info, answers)
            try:
                adapter = Adapter(recorded, chosen)
            except BundleError as error:
                print(f"| {label} | – | – | {error} |")
                continue
            adapter.step(images)
            recorded.forwards = 0
            own = statistics.median(_seconds(partial(adapter.step, images)) for _ in range(options.rounds))
            forwards = recorded.forwards / options.rounds
            share = own / (own + forwards * forward)
            print(f"| {label} | {forwards:g} | {1e3 * own:.1f} | {100 * share:.2f} % |", flush=True)


def _recorded(network: Network, images: ImageArray) -> tuple[SourceStatistics, list[Outputs]]:
    """A few different answers of about the size of real ones, and statistics of one of them."""
    first = network(images)
    generator = np.random.default_rng(1)

    def noisy(values: FloatArray) -> FloatArray:
        return (values * generator.normal(1, 0.02, values.shape)).astype(np.float32)

    answers = [
        Outputs(
            noisy(first.logits),
            noisy(first.features),
            None if first.embedding is None else noisy(first.embedding),
        )
        for _ in range(ANSWERS)
    ]
    mean, std = first.features.mean(axis=0), first.features.std(axis=0, ddof=1)
    return network.info.source or SourceStatistics(mean, std, len(images)), answers


def _seconds(run: Callable[[], object]) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
