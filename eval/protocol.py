"""The protocol of an evaluation: everything that must agree for two results to be comparable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from ..data.reading import Orientation

Setting = Literal["reset", "continual", "rounds", "mixed", "label_shift"]
SETTINGS: tuple[Setting, ...] = get_args(Setting)
OWN_CLASSES = "those of each data set"


@dataclass(frozen=True)
class Protocol:
    """The protocol of a stream, printed with every table.

    Attributes:
        dataset: name of the data set; it says so if corruptions were generated.
        setting: `reset` forgets between domains; `continual` does not; `rounds` is continual over all
            domains several times; `mixed` shuffles the images of all of them into one stream;
            `label_shift` forgets between domains, and each comes ordered by class.
        severities: severities of the corruptions, 1 to 5; empty if there are none.
        subset: chosen images: `all`, `50k`, `5k-list:…`, or `N-seeded`.
        seeds: seeds of subset, order, generated corruptions and methods; one run for each.
        batch_size: images per batch; the last batch of a domain may be smaller.
        classes: classes to predict among: `all` of the bundle, `200 of the data set`, `17 present`, or
            `OWN_CLASSES`.
        rounds: number of passes over the domains.
        concentration: concentration of the Dirichlet distribution that orders the classes under
            `label_shift`: the smaller, the purer the batches; None is one class after the other.
        class_order: order in which class folders were numbered, if it was asked for: `timm`, `torchvision`,
            or `list` and the hash of a list; None if the bundle names its classes, or all orders agree.
        exif_orientation: `apply` if images were turned as their EXIF data say, else `ignore`.
        reduced_above: number of pixels above which JPEG files were decoded at a fraction of their size; None
            if none were.
        orders: the seeds decide order and methods alone; subset and corruptions are those of the first.
    """

    dataset: str
    setting: Setting
    severities: tuple[int, ...]
    subset: str
    seeds: tuple[int, ...]
    batch_size: int
    classes: str
    rounds: int = 1
    concentration: float | None = None
    class_order: str | None = None
    exif_orientation: Orientation = "ignore"
    reduced_above: int | None = None
    orders: bool = False

    def describe(self) -> str:
        """Return the protocol in one line for people."""
        phrases = [self.dataset]
        if self.severities:
            phrases.append(
                f"severit{'y' if len(self.severities) == 1 else 'ies'} {_join_numbers(self.severities)}"
            )
        setting = f"setting {self.setting}"
        if self.setting == "rounds":
            setting += f" ({self.rounds})"
        if self.setting == "label_shift":
            setting += " (sorted)" if self.concentration is None else f" (Dirichlet {self.concentration:g})"
        seeds = f"seed{'s' if len(self.seeds) > 1 else ''} {_join_numbers(self.seeds)}"
        if self.orders:
            seeds = f"{len(self.seeds)} orders (seeds {self.seeds[0]} to {self.seeds[-1]})"
        phrases += [setting, f"subset {self.subset}", f"batch {self.batch_size}", seeds]
        phrases.append(f"classes {self.classes}")
        if self.class_order is not None:
            phrases.append(f"class order {self.class_order}")
        if self.exif_orientation == "apply":
            phrases.append("EXIF orientation applied")
        if self.reduced_above is not None:
            phrases.append(f"JPEG files above {self.reduced_above:,} pixels reduced")
        return ", ".join(phrases)


def _join_numbers(numbers: Sequence[int]) -> str:
    return "+".join(map(str, numbers))
