"""An evaluation put together: bundle, methods, data and protocol; it runs, saves itself, and continues."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ...engine.bundle.bundle import Bundle
from ...engine.errors import InputError
from ...engine.files import sha256_of_parts
from ...engine.registry import AnyMethod, options_of, parse_methods
from ...engine.runtime.network import Network
from ...engine.streams.adapter import Adapter
from ..datasets.by_name import open_dataset
from ..datasets.domain import Domain, describe_deviations
from ..datasets.subset import choose_subset
from ..protocol import Protocol, Setting
from ..results import partial_results as progress
from ..results import results_file as results
from ..results.outcome import Run, Trace
from .runner import advance
from .stream import Integers, segments

DEFAULT_ROUNDS = 10  # ZOA's long protocol


@dataclass
class Experiment:
    """A run of several methods over the streams of one or several seeds.

    Attributes:
        bundle, precision, network: what is adapted.
        methods: by label.
        protocol: how images are streamed.
        domains: gives the data for a seed, in the order of the stream.
        columns: for each class of the bundle, its column in the logits, or None if they are the same.
        deviations: sentences on how the data differs from the official data set.
        runs: one per seed that was begun.
        adapters: of the run that is going on, by label.
    """

    bundle: Bundle
    precision: str
    network: Network
    methods: dict[str, AnyMethod]
    protocol: Protocol
    domains: Callable[[int], list[Domain]]
    columns: Integers | None = None
    deviations: tuple[str, ...] = ()
    runs: list[Run] = field(default_factory=list)
    adapters: dict[str, Adapter] = field(default_factory=dict)
    _saved: progress.Saved | None = None

    def __post_init__(self) -> None:
        """What can fail fails now: the data of the first seed, and every method on this bundle."""
        self._first = self.domains(self.protocol.seeds[0])
        self.adapters = self._adapters(self.protocol.seeds[0])

    @property
    def images(self) -> int:
        """Images in all streams together."""
        return sum(map(len, segments(self._first, self.protocol, 0))) * len(self.protocol.seeds)

    @property
    def processed_images(self) -> int:
        """Images that were processed so far."""
        return sum(run.images for run in self.runs)

    @property
    def results(self) -> results.Results:
        """What was measured so far."""
        return results.Results(
            self.protocol,
            **results.describe(self.bundle, self.precision, self.network),
            methods=results.describe_methods(self.adapters),
            runs=self.runs,
            key_sha256=self.key_sha256,
        )

    def run(self) -> Iterator[int]:
        """Runs from where it is to the end; yields the number of images after every batch."""
        for place, seed in enumerate(self.protocol.seeds):
            domains = self._first if not place else self.domains(seed)
            if place >= len(self.runs):
                self.adapters, self._saved = self._adapters(seed), None
                self.runs.append(Run(seed, [], {label: Trace() for label in self.adapters}))
            elif self.runs[place].complete:
                continue
            elif self._saved is not None:
                self.adapters = self._adapters(seed)
                progress.resume(self.adapters, self._saved)
                self._saved = None
            stream = segments(domains, self.protocol, seed)
            yield from advance(
                self.runs[place], stream, self.adapters, self.protocol.batch_size, self.columns
            )

    def save_progress(self, path: Path) -> None:
        """Writes a point from which `resume` continues; where there is none, what is there already stays.

        Raises:
            OutputError: the file cannot be written; an older one is left as it was.
        """
        if self._saved is None and self.runs and self.runs[-1].consistent:
            progress.save(path, self.key, self.runs, self.adapters)

    def resume(self, path: Path) -> None:
        """Takes up what `save_progress` wrote; results will be those of a run without interruption.

        Raises:
            StateError: it is damaged, or of another run.
        """
        self.runs, self._saved = progress.load(path, self.key)

    @cached_property
    def key(self) -> dict[str, Any]:
        """What makes two runs the same: code, model, methods, protocol and images."""
        return {
            "versions": results.versions(),
            "bundle": self.bundle.sha256,
            "precision": self.precision,
            "provider": self.network.provider,
            "protocol": asdict(self.protocol),
            "methods": {label: [each.name, options_of(each)] for label, each in self.methods.items()},
            "images": self._images_sha256(),
        }

    @cached_property
    def key_sha256(self) -> str:
        """Hash of the key."""
        return sha256_of_parts(json.dumps(self.key, sort_keys=True))

    def _images_sha256(self) -> str:
        return sha256_of_parts(*(f"{d.name}/{d.severity}/{d.ids_sha256()}" for d in self._first))

    def _adapters(self, seed: int) -> dict[str, Adapter]:
        return {label: Adapter(self.network, each, seed) for label, each in self.methods.items()}


def prepare(
    bundle: Path,
    methods: Sequence[str],
    *,
    dataset: str,
    setting: Setting,
    severities: Sequence[int],
    corruptions: Sequence[str] | None,
    subset: str,
    subset_list: Path | None,
    classes: Literal["auto", "all", "present"],
    batch_size: int,
    seed: int,
    seeds: int,
    rounds: int | None,
    concentration: float | None,
    precision: str,
    workers: int | None,
    micro_batch: int | None,
    provider: str,
    data: Path | None,
    clean: Path | None = None,
    labels: Path | None = None,
    generate_from: Path | None = None,
    frost_textures: Path | None = None,
) -> Experiment:
    """Opens and checks everything, so that what can fail fails before the work begins.

    Args:
        bundle: path of the bundle.
        methods: each as for `parse_method`.
        dataset, data, clean, labels, generate_from, frost_textures: as for `open_dataset`.
        setting, rounds, concentration, batch_size: as in `Protocol`; rounds None is the default.
        severities, corruptions: which; None is all corruptions.
        subset, subset_list: as for `choose_subset`.
        classes: to predict among: those of the data set (`auto`), all of the bundle's, or those that occur.
        seed: the first seed.
        seeds: how many, counting up.
        precision, workers, micro_batch, provider: as for `Network.open`.

    Raises:
        FozoError: anything that cannot be used, with what to do about it.
    """
    if rounds is not None and setting != "rounds":
        raise InputError("--rounds goes with --setting rounds")
    if concentration is not None and setting != "label_shift":
        raise InputError("--concentration goes with --setting label_shift")
    configured, opened = parse_methods(methods), Bundle.open(bundle)

    load = partial(
        open_dataset,
        opened.manifest,
        dataset,
        data=data,
        clean=clean,
        labels=labels,
        generate_from=generate_from,
        frost_textures=frost_textures,
        severities=severities,
        corruptions=corruptions,
    )
    label, whole = load(seed=seed)

    def domains(of: int) -> list[Domain]:
        return choose_subset(whole if of == seed else load(seed=of)[1], subset, of, subset_list)[0]

    name, columns, selected = _classes(classes, whole, opened.manifest.classes)
    subset_name = choose_subset(whole, subset, seed, subset_list)[1]
    graded = tuple(dict.fromkeys(domain.severity for domain in whole if domain.severity is not None))
    turns = (rounds or DEFAULT_ROUNDS) if setting == "rounds" else 1
    protocol = Protocol(
        label,
        setting,
        graded,
        subset_name,
        tuple(range(seed, seed + seeds)),
        batch_size,
        name,
        turns,
        concentration,
    )
    network = Network.open(opened, precision, workers=workers, micro_batch=micro_batch, provider=provider)
    return Experiment(
        opened,
        precision,
        network if selected is None else network.select(selected),
        configured,
        protocol,
        domains,
        columns,
        tuple(describe_deviations(whole)),
    )


def _classes(
    kind: str, domains: Sequence[Domain], count: int
) -> tuple[str, Integers | None, list[int] | None]:
    """How the classes to predict among are called, each class's column in the logits, and which they are."""
    if kind == "present":
        chosen = np.unique(np.concatenate([domain.labels for domain in domains])).tolist()
        name = f"{len(chosen)} present"
    elif kind == "auto" and all(domain.classes is not None for domain in domains):
        chosen = sorted({each for domain in domains for each in domain.classes or ()})
        name = f"{len(chosen)} of the data set"
    else:
        return "all", None, None
    columns = np.full(count, -1, np.int64)
    columns[chosen] = np.arange(len(chosen))
    return name, columns, chosen
