"""The outcome of a run per domain and method and along the stream; JSON keeps every bit of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...engine.model import FloatArray
from ...engine.records import to_dict
from ...engine.registry import Prediction
from .bits import Bits
from .class_counts import ClassCounts
from .method_record import BinsRecord, MethodRecord, TallyRecord
from .metrics import Tally


@dataclass
class MethodResult:
    """The outcome of one method on one domain.

    A batch of several domains counts for each by its share of images.

    Attributes:
        tally: counts of right and wrong predictions.
        right: flags of the images that were predicted right, in the order of the stream.
        batches: batches processed.
        forwards: forwards over a batch, summed.
        guarded: batches that the frozen network answered, because of the guard or of numbers not finite.
        seconds: wall time of the method's steps, without loading images.
        peak_bytes: largest resident memory of the process during its steps.
        pull_backs: computations of exact gradients over a batch, summed; 0 for forward-only methods.
    """

    tally: Tally = field(default_factory=Tally)
    right: Bits = field(default_factory=Bits)
    batches: float = 0
    forwards: float = 0
    guarded: float = 0
    seconds: float = 0.0
    peak_bytes: int = 0
    pull_backs: float = 0

    @classmethod
    def count_nothing(cls, by_class: bool) -> MethodResult:
        """Return the result before the first image, which counts classes, too, if asked to."""
        return cls(Tally(classes=ClassCounts() if by_class else None))

    def add(self, logits: FloatArray, labels: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Count the logits `[n, K]` of images with these labels `[n]`; return which are right, `[n]`."""
        correct = self.tally.add(logits, labels)
        self.right.append(correct)
        return correct

    @property
    def images_per_second(self) -> float:
        """Images per second of step time."""
        return self.tally.images / self.seconds if self.seconds else 0.0

    def to_record(self, gained: int, lost: int) -> MethodRecord:
        """Return the form of a results file.

        Args:
            gained: number of images that this method got right and the first one wrong.
            lost: number of images that the first method got right and this one wrong.
        """
        return MethodRecord(
            **vars(self.to_tally_record()),
            images_per_second=self.images_per_second,
            gained=gained,
            lost=lost,
            **{name: getattr(self, name) for name in _COSTS},
        )

    def to_tally_record(self) -> TallyRecord:
        """Return the counts and rates without the cost."""
        tally = self.tally
        return TallyRecord(
            images=tally.images,
            correct=tally.top1,
            correct_top5=tally.top5,
            nll_sum=tally.nll,
            accuracy=tally.accuracy,
            top5_accuracy=tally.top5_accuracy,
            nll=tally.mean_nll,
            ece=tally.ece,
            bins=BinsRecord(
                tuple(tally.bin_images.astype(int).tolist()),
                tuple(tally.bin_confidence.tolist()),
                tuple(tally.bin_correct.astype(int).tolist()),
            ),
            right=self.right.to_json(),
            macro_f1=tally.macro_f1,
            by_class=None if tally.classes is None else tally.classes.to_record(),
        )

    @classmethod
    def from_record(cls, record: MethodRecord) -> MethodResult:
        """Return the result of a record, equal to the bit.

        Raises:
            ValueError: its flags are not base64, or of another number of images.
        """
        result = cls.from_tally_record(record)
        return replace(result, **{name: getattr(record, name) for name in _COSTS})

    @classmethod
    def from_tally_record(cls, record: TallyRecord) -> MethodResult:
        """Return a result without cost.

        Raises:
            ValueError: its flags are not base64, or of another number of images.
        """
        images, confidence, correct = (np.array(values, np.float64) for values in vars(record.bins).values())
        classes = None if record.by_class is None else ClassCounts.from_record(record.by_class)
        counts = record.images, record.correct, record.correct_top5, record.nll_sum
        tally = Tally(*counts, images, confidence, correct, classes)
        return cls(tally, Bits.from_json(record.right, record.images))


_COSTS = ("batches", "forwards", "guarded", "seconds", "peak_bytes", "pull_backs")


@dataclass
class DomainResult:
    """The outcome of all methods on one domain.

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
        complete: every image was processed, or skipped as unreadable.
        seconds: wall time, loading included.
        unreadable: identifiers of the images that were skipped, in the order of the stream.
        remarks: number of processed images by what was ignored in reading them, such as `orientation`.
        left_out: number of files by suffix that show images, but are not read.
        notes: sentences on how the data were understood.
        learnt_from: the prompt was learnt from training images of this data set, so it is in no average.
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
    unreadable: list[str] = field(default_factory=list)
    remarks: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    learnt_from: bool = False

    @property
    def count_deviation(self) -> str:
        """Note if the data has more or fewer images than the official data set; else empty."""
        if self.official_images in (None, self.available_images):
            return ""
        return f"{self.available_images:,} of {self.official_images:,} official images"

    def count_gained_and_lost(self, label: str) -> tuple[int, int]:
        """Return the numbers of images that only this method got right, and that only the first one did.

        Only images that both have processed count: an interruption can leave one of them a batch ahead.
        """
        first, other = next(iter(self.methods.values())).right.array(), self.methods[label].right.array()
        both = min(len(first), len(other))
        first, other = first[:both], other[:both]
        return int((other & ~first).sum()), int((first & ~other).sum())

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON data of a results file, methods last."""
        data = {name: value for name, value in vars(self).items() if name != "methods"}
        data["methods"] = {
            label: to_dict(result.to_record(*self.count_gained_and_lost(label)))
            for label, result in self.methods.items()
        }
        return data


@dataclass
class Trace:
    """The course of a method along the stream, in points of one or more batches.

    Attributes:
        images: number of images of each point.
        correct: number of right ones among them.
        values: loss and diagnostics of the last batch of each point, by name; None if the method did not
            report the value.
    """

    images: list[int] = field(default_factory=list)
    correct: list[int] = field(default_factory=list)
    values: dict[str, list[float | None]] = field(default_factory=dict)

    def add(self, prediction: Prediction, correct: NDArray[np.bool_], *, new: bool) -> None:
        """Add a batch to the last point, or begin a new point with it."""
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
    """The pass of one seed through the stream.

    Attributes:
        seed: seed of the order, the subset, the generated corruptions and the methods.
        domains: domains that were begun.
        traces: traces by label of the method.
        segment: number of complete segments.
        batch: number of complete batches of the next segment.
        complete: the stream is finished.
        consistent: false while a batch is being counted; an interruption would then leave half of it.
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
        """Number of processed images."""
        return sum(next(iter(domain.methods.values())).tally.images for domain in self.domains)

    @property
    def skipped(self) -> int:
        """Number of unreadable images."""
        return sum(len(domain.unreadable) for domain in self.domains)
