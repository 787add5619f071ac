"""An evaluation of methods on a bundle and its data, which can be saved and continued."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ...data.image_reader import describe_unreadable
from ...engine.bundle.bundle import Bundle
from ...engine.files import hash_texts
from ...engine.registry import AnyMethod, get_options, parse_methods
from ...engine.runtime.network import Network
from ...engine.streams.adapter import Adapter
from ..datasets.class_order import describe_order
from ..datasets.dataset_registry import open_dataset
from ..datasets.domain import Domain, describe_deviations
from ..datasets.subset import choose_subset
from ..protocol import Protocol
from ..results import partial_results as progress
from ..results.data_notes import describe_notes
from ..results.outcome import Run, Trace
from ..results.recipe_obstacles import describe_obstacles
from ..results.recipe_record import Recipe
from ..results.results_file import Results
from ..results.run_facts import describe_environment, describe_methods, read_versions
from .method_networks import MethodNetworks
from .recipe_files import check_recipe_data, explain_recipe
from .runner import advance
from .spec import EvaluationSpec
from .stream import Integers, Segment, plan_segments

DEFAULT_ROUNDS = 10  # ZOA's long protocol


@dataclass
class Experiment:
    """A run of several methods over the streams of one or several seeds.

    Attributes:
        bundle, precision: the adapted model.
        method_networks: networks of its graph.
        methods: methods by label.
        protocol: protocol of the stream.
        domains: returns the domains of a seed, in the order of the stream.
        columns: column in the logits of each class of the bundle; None if they are the same.
        deviations: sentences on how the data differs from the official data set.
        skip_unreadable: leave out images that cannot be read, and count them.
        networks: by seed, name of the domain and label of the method, where every domain has classes of its
            own; all are views of `method_networks`, and everything is forgotten between domains. Empty:
            `method_networks` for all domains.
        facts: further facts about bundle and prompts, for results; None removes one.
        recipe: published protocol that is run, or None.
        runs: one per seed that was begun.
        adapters: adapters of the current run, by label.
    """

    bundle: Bundle
    precision: str
    method_networks: MethodNetworks
    methods: dict[str, AnyMethod]
    protocol: Protocol
    domains: Callable[[int], list[Domain]]
    columns: Integers | None = None
    deviations: tuple[str, ...] = ()
    skip_unreadable: bool = False
    networks: Mapping[int, Mapping[str, Mapping[str, Network]]] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    recipe: Recipe | None = None
    runs: list[Run] = field(default_factory=list)
    adapters: dict[str, Adapter] = field(default_factory=dict)
    _saved: progress.Saved | None = None

    def __post_init__(self) -> None:
        """Open the data of the first seed and every method, so that errors occur before the work."""
        self._first = self.domains(self.protocol.seeds[0])
        self.adapters = self._open_adapters(self.protocol.seeds[0], self._first[0])

    @property
    def network(self) -> Network:
        """Network of the methods that re-centre no activations, or of the first one if there are none."""
        return self.method_networks.first

    @property
    def obstacles(self) -> list[str]:
        """Sentences on what will keep the figures from being comparable with those of the recipe."""
        if self.recipe is None:
            return []
        return describe_obstacles(self.recipe, self.results.bundle, self.protocol, self._first)

    @property
    def images(self) -> int:
        """Number of images in all streams together."""
        return sum(map(len, plan_segments(self._first, self.protocol, 0))) * len(self.protocol.seeds)

    @property
    def processed_images(self) -> int:
        """Number of images that were processed or skipped so far."""
        return sum(run.images + run.skipped for run in self.runs)

    def describe_data(self) -> list[str]:
        """Describe how the data were understood, and what is remarkable about the images so far."""
        skipped = [name for run in self.runs for domain in run.domains for name in domain.unreadable]
        notes = [describe_unreadable(len(skipped), skipped[0])] if skipped else []
        return [*describe_notes(self.runs), *notes]

    @property
    def results(self) -> Results:
        """Results measured so far."""
        environment = describe_environment(self.bundle, self.precision, self.network)
        bundle = {**environment["bundle"], **self.facts}
        environment["bundle"] = {name: bundle[name] for name in bundle if self.facts.get(name, 1) is not None}
        return Results(
            self.protocol,
            **environment,
            methods=describe_methods(self.adapters),
            runs=self.runs,
            key_sha256=self.key_sha256,
            recipe=self.recipe,
        )

    def run(self) -> Iterator[int]:
        """Run from the current position to the end; yield the number of images after every batch."""
        for number, seed in enumerate(self.protocol.seeds):
            domains = self._first if not number else self.domains(seed)
            stream = plan_segments(domains, self.protocol, seed)
            if number >= len(self.runs):
                self.adapters, self._saved = self._open_adapters(seed, domains[0]), None
                self.runs.append(Run(seed, [], {label: Trace() for label in self.adapters}))
            elif self.runs[number].complete:
                continue
            elif self._saved is not None:
                self._restore_adapters(seed, self.runs[number], stream)
            yield from self._advance(seed, self.runs[number], stream)

    def _advance(self, seed: int, run: Run, stream: list[Segment]) -> Iterator[int]:
        """Run to the end of a stream; where domains have classes of their own, with new adapters for each."""
        while not run.complete:
            if self.networks and not run.batch:
                self.adapters = self._open_adapters(seed, stream[run.segment].domains[0])
            yield from advance(
                run,
                stream,
                self.adapters,
                self.protocol.batch_size,
                self.columns,
                skip_unreadable=self.skip_unreadable,
                stop=run.segment + 1 if self.networks else None,
                by_class=bool(self.networks),
            )

    def _restore_adapters(self, seed: int, run: Run, stream: list[Segment]) -> None:
        """Open the adapters of a run that was saved, in the state that they had."""
        segment = stream[min(run.segment, len(stream) - 1)]
        self.adapters = self._open_adapters(seed, segment.domains[0])
        if self._saved is not None and (run.batch or not self.networks):
            progress.resume(self.adapters, self._saved)
        self._saved = None

    def save_progress(self, path: Path) -> None:
        """Write a point from which `resume` continues; without one, leave an existing file as it is.

        Raises:
            OutputError: the file cannot be written; an older one is left as it was.
        """
        if self._saved is None and self.runs and self.runs[-1].consistent:
            progress.save(path, self.key, self.runs, self.adapters)

    def resume(self, path: Path) -> None:
        """Restore what `save_progress` wrote; results will be those of a run without interruption.

        Raises:
            StateError: the file is damaged, or of another run.
        """
        self.runs, self._saved = progress.load(path, self.key)

    @cached_property
    def key(self) -> dict[str, Any]:
        """Identity of a run: code, model, methods, protocol and images."""
        return {
            "versions": read_versions(),
            "bundle": self.bundle.sha256,
            "head": self.bundle.manifest.head_name,
            "precision": self.precision,
            "provider": self.network.provider,
            "protocol": asdict(self.protocol),
            "methods": {label: [method.name, get_options(method)] for label, method in self.methods.items()},
            "images": self._images_sha256(),
            **({"classes": self._classes_sha256()} if self.networks else {}),
            **({"recipe": self.recipe.name} if self.recipe else {}),
        }

    @cached_property
    def key_sha256(self) -> str:
        """Hash of the key."""
        return hash_texts(json.dumps(self.key, sort_keys=True))

    def _images_sha256(self) -> str:
        return hash_texts(*(f"{d.name}/{d.severity}/{d.hash_ids()}" for d in self._first))

    def _classes_sha256(self) -> str:
        return hash_texts(
            *(
                f"{seed}/{domain}/{label}/{network.info.identity}"
                for seed, views_of_domains in self.networks.items()
                for domain, views in views_of_domains.items()
                for label, network in views.items()
            )
        )

    def _open_adapters(self, seed: int, domain: Domain) -> dict[str, Adapter]:
        networks = self.networks.get(seed, {}).get(domain.name, {})
        return {
            label: Adapter(networks.get(label, self.method_networks.find(method)), method, seed)
            for label, method in self.methods.items()
        }


def prepare(spec: EvaluationSpec) -> Experiment:
    """Open and check everything, so that errors occur before the work begins.

    Raises:
        FozoError: something cannot be used; the message says what to do about it.
    """
    methods, bundle = parse_methods(spec.methods), Bundle.open(spec.bundle, spec.head)
    with explain_recipe(spec.recipe):
        label, all_domains = open_dataset(spec.dataset, bundle.manifest, spec.seed)
    if spec.recipe is not None:
        check_recipe_data(spec.recipe, all_domains)
    with explain_recipe(spec.recipe):
        subset = choose_subset(all_domains, spec.subset, spec.seed, spec.subset_list)[1]

    def choose_domains(seed: int) -> list[Domain]:
        seed = spec.seed if spec.orders else seed
        same = seed == spec.seed
        domains = all_domains if same else open_dataset(spec.dataset, bundle.manifest, seed)[1]
        return choose_subset(domains, spec.subset, seed, spec.subset_list)[0]

    classes, columns, selected = _select_classes(spec.classes, all_domains, bundle.manifest.classes)
    severities = dict.fromkeys(domain.severity for domain in all_domains if domain.severity is not None)
    protocol = Protocol(
        dataset=label,
        setting=spec.setting,
        severities=tuple(severities),
        subset=subset,
        seeds=tuple(range(spec.seed, spec.seed + (spec.orders or spec.seeds))),
        batch_size=spec.batch_size,
        classes=classes,
        rounds=(spec.rounds or DEFAULT_ROUNDS) if spec.setting == "rounds" else 1,
        concentration=spec.concentration,
        class_order=describe_order(spec.dataset),
        exif_orientation=spec.dataset.reading.exif_orientation,
        reduced_above=spec.dataset.reading.reduced_above,
        orders=spec.orders is not None,
    )
    networks = MethodNetworks.open(
        bundle,
        spec.precision,
        methods.values(),
        workers=spec.workers,
        micro_batch=spec.micro_batch,
        provider=spec.provider,
    )
    return Experiment(
        bundle,
        spec.precision,
        networks if selected is None else networks.view(lambda network: network.select(selected)),
        methods,
        protocol,
        choose_domains,
        columns,
        tuple(describe_deviations(all_domains)),
        spec.on_error == "skip",
        recipe=spec.recipe,
    )


def _select_classes(
    kind: str, domains: Sequence[Domain], count: int
) -> tuple[str, Integers | None, list[int] | None]:
    """Return the name of the classes to predict among, each class's column in the logits, and the classes."""
    if kind == "present":
        classes = np.unique(np.concatenate([domain.labels for domain in domains])).tolist()
        name = f"{len(classes)} present"
    elif kind == "auto" and all(domain.classes is not None for domain in domains):
        classes = sorted({label for domain in domains for label in domain.classes or ()})
        name = f"{len(classes)} of the data set"
    else:
        return "all", None, None
    columns = np.full(count, -1, np.int64)
    columns[classes] = np.arange(len(classes))
    return name, columns, classes
