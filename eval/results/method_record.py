"""The outcome of a method on a domain as results files hold it (docs/results.md)."""

from __future__ import annotations

from dataclasses import dataclass

from .class_counts import ClassCountsRecord
from .metrics import ECE_BINS


@dataclass(frozen=True)
class BinsRecord:
    """The confidence bins of a `Tally`, from the lowest confidence to the highest."""

    images: tuple[float, ...]  # whole numbers, which must fit the tally's arrays
    confidence: tuple[float, ...]
    correct: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuse another number of bins.

        Raises:
            ValueError: a list has not one value per bin.
        """
        lengths = [len(values) for values in vars(self).values()]
        if set(lengths) != {ECE_BINS}:
            raise ValueError(f"expected {ECE_BINS} values in each list, found {lengths}")


@dataclass(frozen=True, kw_only=True)
class TallyRecord:
    """The counts of a `Tally`, and the rates that follow from them.

    Attributes:
        images, correct, correct_top5, nll_sum, bins: counts of the tally.
        accuracy, top5_accuracy, nll, ece: rates of the tally.
        right: flags of the right images, as `Bits.to_json` writes them.
        macro_f1, by_class: rate and counts of the tally's classes; None if they were not counted.
    """

    images: int
    correct: int
    correct_top5: int
    nll_sum: float
    accuracy: float
    top5_accuracy: float
    nll: float
    ece: float
    bins: BinsRecord
    right: str
    macro_f1: float | None = None
    by_class: ClassCountsRecord | None = None


@dataclass(frozen=True, kw_only=True)
class MethodRecord(TallyRecord):
    """A `TallyRecord` with the cost of a `MethodResult`.

    Attributes:
        batches, forwards, guarded, seconds, peak_bytes, images_per_second: as in `MethodResult`.
        pull_backs: as in `MethodResult`; files without it are of forward-only methods.
        gained, lost: as `DomainResult.count_gained_and_lost` returns them.
    """

    batches: int | float
    forwards: int | float
    guarded: int | float
    seconds: float
    peak_bytes: int
    images_per_second: float
    gained: int
    lost: int
    pull_backs: int | float = 0
