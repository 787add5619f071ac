"""Macro-F1: how well the classes are told apart, each with the same weight, however many images it has."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]


def _create_counts() -> Counts:
    return np.zeros(0, np.int64)


@dataclass(frozen=True)
class ClassCountsRecord:
    """The counts of every class as results files hold them: `[K]` each, in the order of the labels.

    Attributes:
        images: images of the class.
        predicted: images that were taken for the class, rightly or not.
        correct: images of the class that were taken for it.
    """

    images: tuple[int, ...]
    predicted: tuple[int, ...]
    correct: tuple[int, ...]

    def __post_init__(self) -> None:
        """Refuse counts that no stream has.

        Raises:
            ValueError: the lists have other lengths, or more images are correct than there are.
        """
        lengths = [len(values) for values in vars(self).values()]
        if len(set(lengths)) != 1:
            raise ValueError(f"expected lists of equal length, found lengths {lengths}")
        for label, (images, predicted, correct) in enumerate(
            zip(self.images, self.predicted, self.correct, strict=True)
        ):
            if not 0 <= correct <= min(images, predicted):
                raise ValueError(
                    f"expected from 0 to {min(images, predicted)} correct images of class {label}, found "
                    f"{correct}"
                )


@dataclass
class ClassCounts:
    """Counts of a stream by class.

    Attributes:
        images, predicted, correct: `[K]`, as in `ClassCountsRecord`; empty before the first batch.
    """

    images: Counts = field(default_factory=_create_counts)
    predicted: Counts = field(default_factory=_create_counts)
    correct: Counts = field(default_factory=_create_counts)

    def add(self, labels: Counts, predictions: Counts, answered: NDArray[np.bool_], classes: int) -> None:
        """Count a batch.

        Args:
            labels: `[N]`, in 0..K − 1.
            predictions: `[N]`, in 0..K − 1.
            answered: `[N]`; the prediction of an image without an answer counts for no class.
            classes: K, the same in every batch.
        """
        if not len(self.images):
            self.images, self.predicted, self.correct = (np.zeros(classes, np.int64) for _ in range(3))
        predicted = predictions[answered]
        right = predicted[predicted == labels[answered]]
        for counts, members in ((self.images, labels), (self.predicted, predicted), (self.correct, right)):
            counts += np.bincount(members, minlength=classes)

    @property
    def macro_f1(self) -> float:
        """Mean over the classes with images of `F1 = 2 correct / (images + predicted)`, in 0..1.

        That is the harmonic mean of precision and recall. A class without images has no F1, though images
        that are taken for it lower that of their own class. So it is what
        `sklearn.metrics.f1_score(labels, predictions, average="macro", labels=np.unique(labels))` returns.
        """
        present = self.images > 0
        if not present.any():
            return 0.0
        total = self.images[present] + self.predicted[present]
        return float(np.mean(2 * self.correct[present] / total))

    def to_record(self) -> ClassCountsRecord:
        """Return the form of a results file."""
        return ClassCountsRecord(
            tuple(self.images.tolist()), tuple(self.predicted.tolist()), tuple(self.correct.tolist())
        )

    @classmethod
    def from_record(cls, record: ClassCountsRecord) -> ClassCounts:
        """Return the counts of a record."""
        return cls(*(np.array(values, np.int64) for values in vars(record).values()))
