"""Search for the fastest arrangement of a graph on a provider, for `fozo bench --tune`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...engine.bundle.bundle import Bundle
from ...engine.runtime import arrangement, tuning
from ...engine.runtime.cpu import count_cpus
from ...engine.runtime.network import Network
from ...engine.runtime.tuning import Measured
from .worker import random_images


@dataclass(frozen=True)
class Tuning:
    """The tuning of one graph on one provider.

    Attributes:
        bundle: bundle of the graph.
        precision: name of the graph.
        provider: `cpu` or `openvino`.
        batch_size: images per forward.
        samples: measurements per arrangement.
    """

    bundle: Bundle
    precision: str
    provider: str
    batch_size: int
    samples: int

    @property
    def images(self) -> int:
        """Number of images to compute."""
        return self.samples * len(tuning.list_arrangements()) * self.batch_size

    def run(self, on_step: Callable[[int], None] = lambda images: None) -> list[Measured]:
        """Measure all arrangements, and save the fastest, which is returned first.

        Args:
            on_step: is called with the number of images after every measurement.

        Raises:
            BundleError: the bundle cannot be used, or has no such graph.
            InputError: the provider is not installed.
            OutputError: the arrangement cannot be saved.
        """
        images = random_images(self.batch_size, self.bundle.manifest.preprocessing.size)
        cpus = count_cpus()
        with Network.open(self.bundle, self.precision, workers=cpus, provider=self.provider) as network:
            measured = tuning.tune(network, images, rounds=self.samples, on_step=on_step)
        graph = self.bundle.graph_sha256(self.precision)
        arrangement.store_arrangement(graph, self.provider, measured[0].arrangement)
        return measured

    def table(self, measured: Sequence[Measured]) -> str:
        """Return the measurements as a table, and where the fastest arrangement is saved."""
        title = f"{self.bundle.manifest.model} {self.precision} on {self.provider}, batch {self.batch_size}"
        lines = [f"{title}, medians of {self.samples} samples", "  workers  micro-batch     img/s   / best"]
        lines += [_format_row(row, measured[0]) for row in measured]
        best = measured[0].arrangement
        where = arrangement.locate_cache_folder() / arrangement.CACHE_FILE
        return "\n".join(
            [*lines, f"Remembered: {best.workers} workers, micro-batch {best.micro_batch}, in {where}"]
        )


def _format_row(measured: Measured, best: Measured) -> str:
    arrangement, seconds = measured.arrangement, measured.seconds
    slower = seconds / best.seconds
    return f"{arrangement.workers:9d}{arrangement.micro_batch:13d}{1 / seconds:10.1f}{slower:9.2f}"
