"""Feeds methods, plain and guarded, streams that are known to break adaptation, and ordinary ones.

Prints, per stream and method, top-1 accuracy on its real images (black and noise batches have none) without
adaptation, of the plain method and of the guarded one, and how often the guard stepped in; `after` is the
accuracy on the clean images that end the stream. Images are clean ones by class folder:

    python bench/guard.py BUNDLE IMAGES --precision int8 --images 512 --methods shift fozo
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.model import FloatArray, ImageArray, ModelInfo, Outputs, Tunables
from fozo.engine.registry import parse_methods
from fozo.engine.runtime.network import Network
from fozo.engine.streams.adapter import Adapter
from fozo.eval.corruptions.corruption_registry import corrupt
from fozo.eval.datasets.image_folder import load_image_folder
from numpy.typing import NDArray

BATCH = 64
AFTER = 2  # batches of clean images after the bad stretch
BAD = 6  # batches of a bad stretch without any real image
CORRUPTED = ("gaussian_noise", "contrast", "elastic_transform")
Labels = NDArray[np.int64]
NONE: Labels = np.zeros(0, np.int64)


@dataclass(frozen=True)
class Batch:
    """Images, their labels (none for images that are not real), and whether they end the stream."""

    images: ImageArray
    labels: Labels
    after: bool = False


class Remembering:
    """A network that remembers the frozen network's answers, which most methods here ask for again."""

    def __init__(self, network: Network) -> None:
        self.network, self.known = network, dict[bytes, Outputs]()

    @property
    def info(self) -> ModelInfo:
        """The model behind it."""
        return self.network.info

    def __call__(self, images: ImageArray, **tunables: FloatArray) -> Outputs:
        """One forward."""
        return self.candidates(images, [tunables])[0]

    def candidates(self, images: ImageArray, tunables: Sequence[Tunables]) -> list[Outputs]:
        """One forward for each; those without tunables are computed once per batch of images."""
        if any(tunables):
            return self.network.candidates(images, tunables)
        key = hashlib.sha256(np.ascontiguousarray(images)).digest()
        if key not in self.known:
            self.known[key] = self.network(images)
        return [self.known[key]] * len(tunables)


def streams(images: ImageArray, labels: Labels, seed: int) -> dict[str, Callable[[], Iterator[Batch]]]:
    """By name, what makes a stream from clean images."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(images))
    tail = [order[i : i + BATCH] for i in range(0, AFTER * BATCH, BATCH)]
    common = np.argsort(-np.bincount(labels), kind="stable")
    runs = max(1, len(images) // BATCH // 4)

    def real(picks: NDArray[np.int64], kind: str | None = None, after: bool = False) -> Batch:
        found = images[picks]
        if kind is not None:
            found = np.stack(
                [
                    corrupt(image, kind, 5, image_id=str(i), seed=seed)
                    for i, image in zip(picks, found, strict=True)
                ]
            )
        return Batch(found, labels[picks], after)

    def split(indices: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        return (indices[i : i + BATCH] for i in range(0, len(indices), BATCH))

    def black() -> Batch:
        return Batch(np.zeros((BATCH, *images.shape[1:]), np.uint8), NONE)

    def noise(index: int) -> Batch:
        made = np.random.default_rng([seed, index]).integers(0, 256, (BATCH, *images.shape[1:]), np.uint8)
        return Batch(made, NONE)

    def ended(batches: Iterable[Batch]) -> Iterator[Batch]:
        yield from batches
        yield from (real(picks, after=True) for picks in tail)

    def one_class() -> Iterator[Batch]:
        for label in common[:runs]:
            yield from [real(np.resize(np.flatnonzero(labels == label), BATCH))] * 4

    def between(bad: Callable[[int], Batch]) -> Iterator[Batch]:
        for index, picks in enumerate(split(order)):
            yield from (bad(index), real(picks))

    def stretch(bad: Callable[[int], Batch]) -> Iterator[Batch]:
        first, *rest = split(order[: len(order) // 2])
        yield real(first)
        yield from map(bad, range(BAD))
        yield from map(real, rest)

    def alternating() -> Iterator[Batch]:
        kinds = (None, *CORRUPTED)
        return (real(picks, kinds[i % len(kinds)]) for i, picks in enumerate(split(order)))

    return {
        "clean": lambda: map(real, split(order)),
        "sorted by class": lambda: ended(map(real, split(np.argsort(labels, kind="stable")))),
        "one class at a time": lambda: ended(one_class()),
        "black in between": lambda: ended(between(lambda index: black())),
        "noise in between": lambda: ended(between(noise)),
        "black for a while": lambda: stretch(lambda index: black()),
        "noise for a while": lambda: stretch(noise),
        "alternating domains": lambda: ended(alternating()),
        **{kind: lambda kind=kind: (real(picks, kind) for picks in split(order)) for kind in CORRUPTED},
    }


@dataclass
class Score:
    """What one run over a stream came to."""

    correct: int = 0
    images: int = 0
    correct_after: int = 0
    images_after: int = 0
    guarded: int = 0
    batches: int = 0
    alarms: int = 0
    shadows: int = 0

    def add(self, batch: Batch, logits: FloatArray, guarded: bool) -> None:
        """Takes in the answer to one batch."""
        right = int((logits[: len(batch.labels)].argmax(axis=1) == batch.labels).sum())
        self.correct += right
        self.images += len(batch.labels)
        self.correct_after += right * batch.after
        self.images_after += len(batch.labels) * batch.after
        self.guarded += guarded
        self.batches += 1

    @property
    def accuracy(self) -> str:
        """In per cent, and behind a slash that of the end of the stream, if it has one of its own."""
        after = f"/{100 * self.correct_after / self.images_after:.1f}" if self.images_after else ""
        return f"{100 * self.correct / self.images:.1f}{after}"


def run(network: Remembering, spec: str, batches: Iterable[Batch], verbose: bool = False) -> Score:
    """Streams batches through one method."""
    adapter = Adapter(network, parse_methods([spec])[spec])
    score = Score()
    for batch in batches:
        prediction, before = adapter.step(batch.images), score.correct
        score.add(batch, prediction.logits, prediction.frozen)
        if verbose:
            shown = {name: round(value, 3) for name, value in prediction.diagnostics.items() if name in SHOWN}
            right = score.correct - before
            print("   ", f"{right:2d}/{len(batch.labels):2d}", "frozen" if prediction.frozen else "", shown)
    score.alarms = getattr(adapter.state, "alarms", 0)
    score.shadows = getattr(adapter.state, "shadows", 0)
    return score


SHOWN = ("diversity", "agreement", "estimated_loss", "alarm", "paused", "entropy", "discrepancy")


def main() -> None:
    """Reads the images and prints the table as Markdown, row by row."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("folder", type=Path, metavar="IMAGES", help="clean images, in a folder per class")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--images", type=int, default=512, help="how many of them")
    parser.add_argument("--offset", type=int, choices=[0, 1], default=1, help="even images, or odd ones")
    parser.add_argument("--methods", nargs="*", default=["shift", "shift_origin", "fozo"], metavar="SPEC")
    parser.add_argument("--streams", nargs="*", help="only these; default: all", metavar="NAME")
    parser.add_argument("--guard", default="guard=rollback", help="options of the guard")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbose", action="store_true", help="every batch of the guarded method")
    options = parser.parse_args()
    bundle = Bundle.open(options.bundle)
    domain = load_image_folder(options.folder, bundle.manifest)
    chosen = np.arange(options.offset, len(domain), 2)[: options.images]
    images, labels = np.stack([domain.load(int(i)) for i in chosen]), domain.labels[chosen]
    made = streams(images, labels, options.seed)
    print(f"{len(images)} images, batch {BATCH}, {bundle.manifest.model} {options.precision}; accuracy in %,")
    print("behind the slash on the clean images that end the stream; batches the frozen network answered\n")
    print("| stream | real images | method | no_adapt | plain | guarded | frozen | alarms | shadows |")
    print("|---|---|---|---|---|---|---|---|---|")
    with Network.open(bundle, options.precision) as opened:
        network = Remembering(opened)
        for name in options.streams or made:
            batches = list(made[name]())
            frozen = run(network, "no_adapt", batches)
            for spec in options.methods:
                plain = run(network, spec, batches)
                guarded = f"{spec}{',' if ':' in spec else ':'}{options.guard}"
                watched = run(network, guarded, batches, options.verbose)
                print(
                    f"| {name} | {frozen.images} | {spec} | {frozen.accuracy} | {plain.accuracy} "
                    f"| {watched.accuracy} | {watched.guarded} of {watched.batches} | {watched.alarms} "
                    f"| {watched.shadows} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
