"""Suspicion that labels, or the order of the classes, are not those of the model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ...engine.statistics.chance import is_chance
from ..datasets.corruption_names import CLEAN
from .outcome import DomainResult, Run

MIN_IMAGES = 20  # fewer prove nothing
# Images that were collected because models err on them.
_ADVERSARIAL = frozenset({"imagenet-a"})


def describe_chance(runs: Sequence[Run], classes: int) -> str | None:
    """Return a warning if no method is better than guessing where any model should be; None otherwise.

    Images without corruptions decide, and all images together where every one is corrupted.

    Args:
        runs: of one protocol.
        classes: number of classes that the methods predict among.
    """
    domains = [domain for run in runs for domain in run.domains if domain.name not in _ADVERSARIAL]
    clean = [domain for domain in domains if domain.severity is None or domain.name == CLEAN]
    counts = list(_count(clean or domains))
    if (
        classes < 2
        or not counts
        or not all(images >= MIN_IMAGES and is_chance(correct, images, classes) for correct, images in counts)
    ):
        return None
    accuracy = max(correct / images for correct, images in counts)
    what = "clean images" if clean else "the images of all corruptions"
    return (
        f"the accuracy on {what} is {100 * accuracy:.1f} %, and guessing among {classes} classes gives "
        f"{100 / classes:.1f} %: the labels or the order of the classes are probably not the model's, or the "
        "images are not of its classes; see --class-ids and --class-order, and how the images are prepared "
        "(fozo inspect)"
    )


def _count(domains: Sequence[DomainResult]) -> Iterator[tuple[int, int]]:
    """Yield the number of right images and of all images for each method."""
    labels = dict.fromkeys(label for domain in domains for label in domain.methods)
    for label in labels:
        tallies = [domain.methods[label].tally for domain in domains if label in domain.methods]
        yield sum(tally.top1 for tally in tallies), sum(tally.images for tally in tallies)
