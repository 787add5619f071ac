"""How far clean images are from the source statistics, in units of what chance gives (docs/pizo.md).

Draws N of the source's images for statistics, and then n others, or n of another clean data set. Prints the
mean of their discrepancy by `estimate_chance_discrepancy` over several draws.

    python bench/chance.py BUNDLE --source TRAIN --images VAL --precision int8
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from fozo.data.loader import load_batches
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.model import FloatArray, SourceStatistics
from fozo.engine.runtime.network import Network
from fozo.engine.statistics.feature_statistics import Moments
from fozo.engine.statistics.objective import compute_discrepancy, estimate_chance_discrepancy
from fozo.eval.datasets.image_folder import load_image_folder

COUNTS = (8, 32, 64, 128, 256, 512)


def main() -> None:
    """Prints the table as Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--source", type=Path, required=True, help="clean training images")
    parser.add_argument("--images", type=Path, required=True, help="other clean images")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--statistics", type=int, nargs="*", default=[32, 128, 512], metavar="N")
    parser.add_argument("--draws", type=int, default=20)
    options = parser.parse_args()
    with Network.open(options.bundle, options.precision) as network:
        source, others = (
            features(network, options.bundle, folder) for folder in (options.source, options.images)
        )
    generator = np.random.default_rng(0)
    print(f"| n | {' | '.join(map(str, COUNTS))} |\n|---|{'---:|' * len(COUNTS)}")
    for count in options.statistics:
        order = generator.permutation(len(source))
        statistics = of(source[order[:count]])
        for name, pool in (("source", source[order[count:]]), ("other", others)):
            cells = [ratio(pool, n, statistics, options.draws, generator) for n in COUNTS]
            print(f"| {name} images, N = {count} | {' | '.join(cells)} |")


def features(network: Network, bundle: Path, folder: Path) -> FloatArray:
    """Those of all images of a folder, `[N, L, F]`."""
    domain = load_image_folder(folder, Bundle.open(bundle).manifest)
    batches = load_batches(domain.load, np.arange(len(domain)), 64)
    return np.concatenate([network(images).features for images in batches])


def of(values: FloatArray) -> SourceStatistics:
    """The statistics of features."""
    moments = Moments.of(values)
    assert moments.std is not None
    return SourceStatistics(moments.mean.astype(np.float32), moments.std.astype(np.float32), moments.count)


def ratio(
    pool: FloatArray, count: int, statistics: SourceStatistics, draws: int, generator: np.random.Generator
) -> str:
    """Mean discrepancy of so many features of a pool by what chance gives, or nothing if there are fewer."""
    if count > len(pool):
        return ""
    chosen = [Moments.of(pool[generator.permutation(len(pool))[:count]]) for _ in range(draws)]
    found = np.mean([compute_discrepancy(each, statistics) for each in chosen])
    return f"{found / estimate_chance_discrepancy(statistics, count):.2f}"


if __name__ == "__main__":
    main()
