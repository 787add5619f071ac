"""The outcome of a run, per domain and method and along the stream; it survives JSON to the bit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...engine.registry import Prediction
from .bits import Bits
from .metrics import Tally


@dataclass
class MethodResult:
    """The outcome of one method on one domain.

    A batch of several domains counts for each by its share of images.

    Attributes:
        tally: counts of right and wrong predictions.
        right: whether each image was right, in the order in which they came.
        batches: batches processed.
        forwards: forwards over a batch, summed.
        guarded: batches that the frozen network answered, because of the guard or of numbers not finite.
        seconds: wall time spent in the method's steps; loading images is not in it.
        peak_bytes: largest resident memory of the process during its steps.
    """

    tally: Tally = field(default_factory=Tally)
    right: Bits = field(default_factory=Bits)
    batches: float = 0
    forwards: float = 0
    guarded: float = 0
    seconds: float = 0.0
    peak_bytes: int = 0

    @property
    def images_per_second(self) -> float:
        """Images per second of step time."""
        return self.tally.images / self.seconds if self.seconds else 0.0

    def to_json(self) -> dict[str, Any]:
        """All counts, the rates that follow from them, and which images were right."""
        return {
            **self.tally.to_json(),
            "right": self.right.to_json(),
            **{name: getattr(self, name) for name in _COUNTS},
            "images_per_second": self.images_per_second,
        }

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> MethodResult:
        """The same again."""
        tally, right = Tally.from_json(content), Bits.from_json(content["right"], content["images"])
        return MethodResult(tally, right, **{name: content[name] for name in _COUNTS})


_COUNTS = ("batches", "forwards", "guarded", "seconds", "peak_bytes")


@dataclass
class DomainResult:
    """All methods on one domain.

    Attributes:
        name: name of the domain.
        methods: results by label of the method, in the order given.
        severity: severity of the corruption, or None.
        round: number of the pass over the domains, from 1.
        segment: number of the segment of the stream; the domains of one segment were mixed.
        generated: the corruption was computed by fozo and is not the official data.
        benchmark: published benchmark that the domain belongs to, if figures depend on that.
        images: number of images, processed or not.
        available_images: number of images of the data, before a subset was chosen.
        official_images: number of images of the official data set, or None.
        ids_sha256: hash of the images' identifiers in order, which tells subsets apart; if they have none,
            hash of the images and labels themselves.
        complete: every image was processed.
        seconds: wall time, loading included.
    """

    name: str
    methods: dict[str, MethodResult]
    severity: int | None = None
    round: int = 1
    segment: int = 0
    generated: bool = False
    benchmark: str | None = None
    images: int = 0
    available_images: int = 0
    official_images: int | None = None
    ids_sha256: str = ""
    complete: bool = False
    seconds: float = 0.0

    @property
    def count_deviation(self) -> str:
        """Note if the data has more or fewer images than the official data set; else empty."""
        if self.official_images in (None, self.available_images):
            return ""
        return f"{self.available_images:,} of {self.official_images:,} official images"

    def gained_and_lost(self, label: str) -> tuple[int, int]:
        """Count the images that a method got right and the first one did not, and the other way round.

        Counted over the images that both have seen: an interruption can leave one of them a batch ahead.
        """
        first, other = next(iter(self.methods.values())).right.array(), self.methods[label].right.array()
        both = min(len(first), len(other))
        first, other = first[:both], other[:both]
        return int((other & ~first).sum()), int((first & ~other).sum())

    def to_json(self) -> dict[str, Any]:
        """Everything, methods last."""
        facts = {name: value for name, value in vars(self).items() if name != "methods"}
        methods = {}
        for label, result in self.methods.items():
            gained, lost = self.gained_and_lost(label)
            methods[label] = {**result.to_json(), "gained": gained, "lost": lost}
        return {**facts, "methods": methods}

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> DomainResult:
        """The same again."""
        methods = {label: MethodResult.from_json(result) for label, result in content["methods"].items()}
        return DomainResult(**{**content, "methods": methods})


@dataclass
class Trace:
    """The course of a method along the stream, in points of one or more batches.

    Attributes:
        images: images of each point.
        correct: right ones among them.
        values: what the method said of itself (loss, diagnostics) on the last batch of each point, by name;
            None where it said nothing of that.
    """

    images: list[int] = field(default_factory=list)
    correct: list[int] = field(default_factory=list)
    values: dict[str, list[float | None]] = field(default_factory=dict)

    def add(self, prediction: Prediction, correct: NDArray[np.bool_], *, new: bool) -> None:
        """Adds a batch to the last point, or begins a new one with it."""
        if new:
            self.images.append(0)
            self.correct.append(0)
            for values in self.values.values():
                values.append(None)
        self.images[-1] += len(correct)
        self.correct[-1] += int(correct.sum())
        reported = dict(prediction.diagnostics)
        if prediction.loss is not None:
            reported["loss"] = prediction.loss
        for name, value in reported.items():
            column = self.values.setdefault(name, [None] * len(self.images))
            column[-1] = float(value)


@dataclass
class Run:
    """One seed's way through the stream.

    Attributes:
        seed: of the order, the subset, the generated corruptions and the methods.
        domains: those that were begun.
        traces: by label.
        segment: segments that are complete.
        batch: batches of the next one that are.
        complete: the stream came to its end.
        consistent: false while a batch is being counted; an interruption then leaves half of it.
    """

    seed: int
    domains: list[DomainResult]
    traces: dict[str, Trace]
    segment: int = 0
    batch: int = 0
    complete: bool = False
    consistent: bool = True

    @property
    def images(self) -> int:
        """Images that were seen."""
        return sum(next(iter(domain.methods.values())).tally.images for domain in self.domains)

    def to_json(self) -> dict[str, Any]:
        """Everything."""
        return {
            **vars(self),
            "domains": [domain.to_json() for domain in self.domains],
            "traces": {label: vars(trace) for label, trace in self.traces.items()},
        }

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> Run:
        """The same again."""
        return Run(
            **{
                **content,
                "domains": [DomainResult.from_json(domain) for domain in content["domains"]],
                "traces": {label: Trace(**trace) for label, trace in content["traces"].items()},
            }
        )
