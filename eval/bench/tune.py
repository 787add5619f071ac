"""`fozo bench --tune`: finds the fastest arrangement of each graph and provider, and remembers it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...engine.bundle.bundle import Bundle
from ...engine.runtime import tuning
from ...engine.runtime.cpu import available_cpus
from ...engine.runtime.network import Network
from ...engine.runtime.tuning import Measured
from .worker import random_images


@dataclass(frozen=True)
class Tuning:
    """What is tuned.

    Attributes:
        bundle: whose graphs.
        precision: which graph.
        provider: `cpu` or `openvino`.
        batch_size: images per forward.
        rounds: how often every arrangement is measured.
    """

    bundle: Bundle
    precision: str
    provider: str
    batch_size: int
    rounds: int

    @property
    def images(self) -> int:
        """How many images will be computed."""
        return self.rounds * len(tuning.arrangements()) * self.batch_size

    def run(self, on_step: Callable[[int], None] = lambda images: None) -> list[Measured]:
        """Measures all arrangements and remembers the fastest, which is the first.

        Args:
            on_step: called after each measurement with its number of images.

        Raises:
            BundleError: the bundle cannot be used, or has no such graph.
            InputError: the provider is not installed.
            OutputError: the arrangement cannot be remembered.
        """
        images = random_images(self.batch_size, self.bundle.manifest.preprocessing.size)
        cpus = available_cpus()
        with Network.open(self.bundle, self.precision, workers=cpus, provider=self.provider) as network:
            measured = tuning.tune(network, images, rounds=self.rounds, on_step=on_step)
        graph = self.bundle.graph_sha256(self.precision)
        tuning.remember(graph, self.provider, measured[0].arrangement)
        return measured

    def table(self, measured: Sequence[Measured]) -> str:
        """What was measured, for people, and where it is kept."""
        title = f"{self.bundle.manifest.model} {self.precision} on {self.provider}, batch {self.batch_size}"
        lines = [f"{title}, medians of {self.rounds} rounds", "  workers  micro-batch     img/s   / best"]
        lines += [_row(each, measured[0]) for each in measured]
        best = measured[0].arrangement
        where = tuning.cache_folder() / tuning.CACHE_FILE
        return "\n".join(
            [*lines, f"Remembered: {best.workers} workers, micro-batch {best.micro_batch}, in {where}"]
        )


def _row(measured: Measured, best: Measured) -> str:
    arrangement, seconds = measured.arrangement, measured.seconds
    slower = seconds / best.seconds
    return f"{arrangement.workers:9d}{arrangement.micro_batch:13d}{1 / seconds:10.1f}{slower:9.2f}"
