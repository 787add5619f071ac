"""An evaluation run put together: bundle, methods, domains and protocol; it runs, and it saves itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..engine.adapter import Adapter
from ..engine.bundle import Bundle
from ..engine.methods import parse_methods
from ..engine.network import Network
from . import results, runner
from .datasets import open_dataset
from .domains import Domain
from .protocol import Protocol, Setting, choose_subset


@dataclass
class Experiment:
    """A run of several methods over several domains.

    Attributes:
        bundle, precision, network: what is adapted.
        adapters: one stream per method, by label.
        domains: in the order of the stream.
        protocol: how they are streamed.
        columns: for each class of the bundle, its column in the logits, or None if they are the same.
        results: one per domain that was begun.
    """

    bundle: Bundle
    precision: str
    network: Network
    adapters: dict[str, Adapter]
    domains: list[Domain]
    protocol: Protocol
    columns: NDArray[np.int64] | None = None
    results: list[runner.DomainResult] = field(default_factory=list)

    @property
    def images(self) -> int:
        """Images in all domains together."""
        return sum(map(len, self.domains))

    @property
    def started(self) -> bool:
        """Whether a batch has been processed."""
        return any(part.batches for result in self.results for part in result.methods.values())

    def run(self, on_batch: Callable[[int], None] = lambda images: None) -> Iterator[runner.DomainResult]:
        """Runs, yielding each domain's result when it begins and when it is complete."""
        self.results = []
        for result in runner.run(
            self.domains, self.adapters, self.protocol, columns=self.columns, on_batch=on_batch
        ):
            if not result.complete:
                self.results.append(result)
            yield result

    def save(self, path: Path) -> None:
        """Writes what has been measured so far.

        Raises:
            OutputError: the file cannot be written; an older one is left as it was.
        """
        complete = len(self.results) == len(self.domains) and all(result.complete for result in self.results)
        results.save(
            path,
            results.document(
                self.bundle,
                self.precision,
                self.network,
                self.adapters,
                self.protocol,
                self.results,
                complete=complete,
            ),
        )


def prepare(
    bundle: Path,
    methods: Sequence[str],
    *,
    dataset: str,
    data: Path | None,
    generate_from: Path | None,
    frost_textures: Path | None = None,
    setting: Setting,
    severity: int,
    corruptions: str | None,
    subset: str,
    subset_list: Path | None,
    classes: Literal["all", "present"],
    batch_size: int,
    seed: int,
    precision: str,
    workers: int | None,
    micro_batch: int | None,
    provider: str = "cpu",
) -> Experiment:
    """Opens and checks everything, so that what can fail fails before the work begins.

    Raises:
        FozoError: anything that cannot be used, with what to do about it.
    """
    configured = parse_methods(methods)
    opened = Bundle.open(bundle)
    names = tuple(name.strip() for name in corruptions.split(",")) if corruptions is not None else None
    label, domains = open_dataset(
        opened.manifest,
        dataset,
        data=data,
        generate_from=generate_from,
        frost_textures=frost_textures,
        severities=(severity,),
        corruptions=names,
        seed=seed,
    )
    domains, subset = choose_subset(domains, subset, seed, subset_list)
    protocol = Protocol(
        label, setting, None if dataset == "imagefolder" else severity, subset, seed, batch_size, classes
    )
    network = Network.open(opened, precision, workers=workers, micro_batch=micro_batch, provider=provider)
    columns = None
    if classes == "present":
        present = np.unique(np.concatenate([domain.labels for domain in domains]))
        network = network.select(present.tolist())
        columns = np.full(opened.manifest.classes, -1, np.int64)
        columns[present] = np.arange(len(present))
    adapters = {name: Adapter(network, chosen, seed) for name, chosen in configured.items()}
    return Experiment(opened, precision, network, adapters, domains, protocol, columns)
