"""Compares methods over generated corruptions, in both settings at once and over several seeds.

Prints tables (`bench/tables.py`) and keeps everything in a JSON file. Where several methods need the answer
of the plain network to a batch, it is computed once, so this says nothing of speed: `fozo bench` does.

    python bench/family.py BUNDLE IMAGES --frost-textures FROST -m no_adapt -m shift -m fozo
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from fozo.data.loader import load_batches
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.files import write_atomic
from fozo.engine.model import FloatArray, ImageArray, ModelInfo, Outputs, Tunables
from fozo.engine.registry import parse_methods
from fozo.engine.runtime.network import Network
from fozo.engine.streams.adapter import Adapter
from fozo.eval.datasets.corruption_names import CLEAN, IMAGENET_C
from fozo.eval.datasets.domain import Domain
from fozo.eval.datasets.generated_domains import generate_domains
from fozo.eval.datasets.image_folder import load_image_folder
from fozo.eval.datasets.subset import choose_subset
from fozo.eval.results.metrics import Tally
from fozo.eval.streaming.stream import shuffle_order
from numpy.typing import NDArray
from tables import tables

SETTINGS = ("reset", "continual")


class Remembering:
    """A network that answers the same batch without tunables only once."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self._images: ImageArray | None = None
        self._plain: Outputs | None = None

    @property
    def info(self) -> ModelInfo:
        """The model behind this network."""
        return self.network.info

    def __call__(self, images: ImageArray, **tunables: FloatArray) -> Outputs:
        """One forward, or the answer of the one before."""
        if tunables:
            return self.network(images, **tunables)
        if self._plain is None or self._images is not images:
            self._images, self._plain = images, self.network(images)
        return self._plain

    def candidates(self, images: ImageArray, tunables: Sequence[Tunables]) -> list[Outputs]:
        """One forward for each of several sets of tunables."""
        return self.network.candidates(images, tunables)


def main() -> None:
    """Runs what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("images", type=Path, help="clean images, one folder per class")
    parser.add_argument("-m", "--method", action="append", required=True, metavar="SPEC", dest="methods")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--frost-textures", type=Path)
    parser.add_argument("--severity", type=int, default=5)
    parser.add_argument(
        "--corruptions", nargs="*", default=[*IMAGENET_C, CLEAN], metavar="NAME", help="they may come again"
    )
    parser.add_argument("--subset", default="all", help="images per domain, another choice for each seed")
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--passes", type=int, default=1, help="over each domain before the next")
    parser.add_argument("--rounds", type=int, default=1, help="over all domains")
    parser.add_argument(
        "--stretch", type=int, help="images each time that a domain comes: the next ones, until all were seen"
    )
    parser.add_argument(
        "--workers", type=int, help="threads; two processes of one each do more than one of two"
    )
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--settings", nargs="*", default=SETTINGS, choices=SETTINGS)
    parser.add_argument("--out", type=Path, default=Path("family.json"))
    options = parser.parse_args()
    begin, rows = time.monotonic(), []
    with Network.open(options.bundle, options.precision, workers=options.workers) as network:
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            for row in stream(network, options, seed):
                rows.append(row)
                write_atomic(
                    options.out, json.dumps({"options": vars(options), "rows": rows}, default=str).encode()
                )
                if row["method"] == options.methods[-1] and row["setting"] == options.settings[-1]:
                    minutes = (time.monotonic() - begin) / 60
                    print(f"seed {seed}, {row['domain']}: {minutes:.0f} minutes", flush=True)
    print(tables(rows))


def stream(network: Network, options: argparse.Namespace, seed: int) -> Iterator[dict[str, Any]]:
    """One seed: a row for every domain, setting and method as soon as the domain is through."""
    shared = Remembering(network)
    adapters = {
        (setting, label): Adapter(shared, method, seed)
        for setting in options.settings
        for label, method in parse_methods(options.methods).items()
    }
    manifest = Bundle.open(options.bundle).manifest
    clean = replace(load_image_folder(options.images, manifest), name=CLEAN)
    names = list(dict.fromkeys(options.corruptions))
    domains = generate_domains(clean, options.severity, names, seed, options.frost_textures)
    chosen = dict(zip(names, choose_subset(domains, options.subset, seed)[0], strict=True))
    visits = Counter[str]()
    turns = product(range(1, options.rounds + 1), options.corruptions, range(1, options.passes + 1))
    for turn, name, number in turns:
        domain = chosen[name]
        tallies, forwards = {key: Tally() for key in adapters}, dict.fromkeys(adapters, 0)
        for (setting, _), adapter in adapters.items():
            if setting == "reset" and number == 1:
                adapter.reset()
        order = shuffle_order(len(domain), domain.name, seed)
        if options.stretch:
            start = visits[domain.name] * options.stretch
            order = order.take(range(start, start + options.stretch), mode="wrap")
            visits[domain.name] += 1
        for images, labels in batches(domain, order, options.batch_size):
            for key, adapter in adapters.items():
                prediction = adapter.step(images)
                tallies[key].add(prediction.logits, labels)
                forwards[key] += prediction.forwards * len(images)
        for (setting, label), tally in tallies.items():
            facts = {
                "round": turn,
                "pass": number,
                "images": tally.images,
                "accuracy": 100 * tally.accuracy,
                "ece": 100 * tally.ece,
                "forwards": forwards[setting, label] / tally.images,
            }
            yield {"seed": seed, "domain": domain.name, "setting": setting, "method": label, **facts}


def batches(domain: Domain, order: NDArray[np.int64], size: int) -> Iterator[tuple[ImageArray, Any]]:
    """Images and labels of a domain in some order."""
    with closing(load_batches(domain.load, order, size)) as loaded:
        for index, images in enumerate(loaded):
            yield images, domain.labels[order][index * size :][: len(images)]


if __name__ == "__main__":
    main()
