"""The order of images in a stream: a sequence of segments, each an order over some domains."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...data.image_file import Remark
from ...data.loader import load_batches
from ...data.reading import suggest_skipping
from ...engine.errors import InputError
from ..datasets.corruption_names import CLEAN
from ..datasets.domain import Domain
from ..protocol import Protocol

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """Images that arrive together.

    Attributes:
        images: uint8 `[N, H, W, 3]`.
        labels: `[N]`, indices into the classes of the bundle.
        members: `[N]`, index of each image's domain in the segment.
        ids: `[N]`, identifiers of the images in their data set.
        unreadable: images that were skipped: index of the domain, identifier, and error.
        remarks: remarks on images, each with the index of the domain.
        open_image: returns the decoded file of an image, given its place in the batch; None where there is no
            file, or for all images without files.
    """

    images: NDArray[np.uint8]
    labels: Integers
    members: Integers
    ids: tuple[str, ...]
    unreadable: tuple[tuple[int, str, str], ...] = ()
    remarks: tuple[tuple[int, Remark], ...] = ()
    open_image: Callable[[int], Image.Image | None] | None = None


@dataclass(frozen=True)
class Segment:
    """A part of the stream within which no method is reset.

    Attributes:
        domains: domains of the images: one, or under `mixed` several.
        order: returns the order of all images, numbered through the domains one after the other.
        forget: methods are reset before it.
        round: number of the pass over the domains, from 1.
    """

    domains: tuple[Domain, ...]
    order: Callable[[], Integers]
    forget: bool
    round: int = 1

    def __len__(self) -> int:
        return sum(map(len, self.domains))

    def batches(self, size: int, start: int = 0, *, skip: bool = False) -> Iterator[Batch]:
        """Yield all batches from number `start` on; the last may be smaller.

        With `skip`, an unreadable image leaves its batch, which is then smaller or even empty, and no other
        image moves.

        Raises:
            InputError: an image cannot be read, and is not to be skipped.
        """
        order = self.order()[start * size :]
        ends = np.cumsum([len(domain) for domain in self.domains])
        members = np.searchsorted(ends, order, side="right")
        within = order - (ends - [len(domain) for domain in self.domains])[members]
        labels = np.empty(len(order), np.int64)
        for index, domain in enumerate(self.domains):
            labels[members == index] = domain.labels[within[members == index]]
        errors: dict[int, str] = {}
        remarks: dict[int, set[Remark]] = {}

        def load(position: int) -> NDArray[np.uint8] | None:
            domain = self.domains[int(members[position])]
            try:
                with domain.collect_remarks() as remarks[position]:
                    return domain.load(int(within[position]))
            except InputError as error:
                if not skip:
                    raise suggest_skipping(error) from error
                errors[position] = str(error)
                return None

        with closing(load_batches(load, range(len(order)), size)) as loaded:
            for index, images in enumerate(loaded):
                positions = range(index * size, min((index + 1) * size, len(order)))
                rows = [position for position in positions if position not in errors]
                unreadable = tuple(
                    (int(members[at]), self.domains[members[at]].ids[within[at]], errors.pop(at))
                    for at in positions
                    if at in errors
                )
                remarked = tuple(
                    (int(members[at]), remark) for at in rows for remark in sorted(remarks.pop(at))
                )
                ids = tuple(self.domains[members[at]].ids[within[at]] for at in rows)
                open_image = partial(_open_image, self.domains, members[rows], within[rows])
                yield Batch(images, labels[rows], members[rows], ids, unreadable, remarked, open_image)


def _open_image(
    domains: Sequence[Domain], members: Integers, within: Integers, row: int
) -> Image.Image | None:
    """Return the decoded file of an image of a batch, or None if it has none."""
    open_image = domains[members[row]].open_image
    return None if open_image is None else open_image(int(within[row]))


def plan_segments(domains: Sequence[Domain], protocol: Protocol, seed: int) -> list[Segment]:
    """Return the stream of one seed.

    Under `mixed` and `rounds`, clean images come once, at the end: they show what adaptation costs.
    """
    if protocol.setting == "mixed":
        return _mix_domains(domains, seed)
    forget = protocol.setting in ("reset", "label_shift")
    return [
        Segment((domain,), _order(domain, protocol, seed, turn), forget, turn)
        for turn in range(1, protocol.rounds + 1)
        for domain in domains
        if protocol.rounds == turn or domain.name != CLEAN
    ]


def _mix_domains(domains: Sequence[Domain], seed: int) -> list[Segment]:
    mixed = tuple(domain for domain in domains if domain.name != CLEAN)
    stream = (
        [Segment(mixed, partial(shuffle_order, sum(map(len, mixed)), "mixed", seed), True)] if mixed else []
    )
    for domain in (domain for domain in domains if domain.name == CLEAN):
        stream.append(Segment((domain,), partial(shuffle_order, len(domain), domain.name, seed), not stream))
    return stream


def _order(domain: Domain, protocol: Protocol, seed: int, turn: int) -> Callable[[], Integers]:
    if protocol.setting == "label_shift":
        return partial(order_by_class, domain, seed, protocol.concentration)
    return partial(shuffle_order, len(domain), domain.name, seed, turn)


def shuffle_order(count: int, name: str, seed: int, turn: int = 1) -> Integers:
    """Return a permutation of `count` that depends only on these four arguments."""
    return _generator("order", seed, name, *([turn] if turn > 1 else [])).permutation(count)


def order_by_class(domain: Domain, seed: int, concentration: float | None = None) -> Integers:
    """Return an order of a domain in which images of one class come together.

    Without a concentration, classes ascend and each is shuffled. With one, there are as many slots as
    classes: every class spreads its images over the slots in proportions drawn from a symmetric Dirichlet
    distribution, and each slot is shuffled. Towards 0, the images of a class share one slot; towards
    infinity, the order does not depend on the classes.
    """
    order = shuffle_order(len(domain), domain.name, seed)
    labels = domain.labels[order]
    if concentration is None:
        return order[np.argsort(labels, kind="stable")]
    generator = _generator("label shift", seed, domain.name)
    classes, counts = np.unique(labels, return_counts=True)
    slots = np.empty(len(order), np.int64)
    for label, count in zip(classes, counts, strict=True):
        shares = generator.dirichlet(np.full(len(classes), concentration))
        slots[labels == label] = generator.choice(len(classes), count, p=shares)
    return order[np.argsort(slots, kind="stable")]


def _generator(*key: object) -> np.random.Generator:
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return np.random.default_rng(list(digest))
