"""Subsets of a data set: all images, a published list, or a seeded choice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...data.text_lists import read_entries
from ...engine.errors import InputError
from ...engine.files import hash_file
from .domain import Domain

FULL = 50_000
SMALL = 5_000


def choose_subset(
    domains: Sequence[Domain], subset: str, seed: int, id_list: Path | None = None
) -> tuple[list[Domain], str]:
    """Restrict every domain to a subset, and name the choice.

    Args:
        domains: the domains.
        subset: `all`; `50k`, all 50,000 images, or an error; `5k`, the published list if `id_list` is given
            and else a seeded choice, named as such; or a number, a seeded choice.
        seed: seed of a seeded choice. Domains with the same images get the same choice.
        id_list: file with one image per line, `<wnid>/<file>` or `<file>`.

    Raises:
        InputError: there is no such subset, or a domain does not have these images.
    """
    if id_list is not None:
        lines = _read_list(id_list)
        digest = hash_file(id_list)
        label = "5k" if len(lines) == SMALL else str(len(lines))
        if subset != "all" and _parse_count(subset) != len(lines):
            raise InputError(f"subset {subset}: the list {id_list} has {len(lines)} images")
        return [_take_listed(domain, lines, id_list) for domain in domains], f"{label}-list:{digest[:12]}"
    if subset in ("all", "50k"):
        short = [domain for domain in domains if subset == "50k" and len(domain) != FULL]
        if short:
            raise InputError(
                f"subset 50k: expected {FULL:,} images in {short[0].name}, found {len(short[0]):,}; "
                "complete the data, or say --subset all to use what is there"
            )
        return list(domains), subset
    count = _parse_count(subset)
    small = [domain for domain in domains if len(domain) < count]
    if small:
        raise InputError(
            f"subset {subset}: {small[0].name} has only {len(small[0]):,} images; choose a smaller "
            "subset, or all"
        )
    return [_take_seeded(domain, count, seed) for domain in domains], f"{subset}-seeded"


def _parse_count(subset: str) -> int:
    if subset in ("5k", "50k"):
        return SMALL if subset == "5k" else FULL
    if not subset.isdecimal() or int(subset) < 1:
        raise InputError(f"expected a subset all, 50k, 5k or a number of images, found {subset!r}")
    return int(subset)


def _take_seeded(domain: Domain, count: int, seed: int) -> Domain:
    picks = np.random.default_rng([seed, count]).choice(len(domain), count, replace=False)
    return domain.take(np.sort(picks))


def _read_list(path: Path) -> list[tuple[int, str]]:
    lines = read_entries(path, "list of images")
    names = [name for _, name in lines]
    if not names or len(set(names)) != len(names):
        raise InputError(
            f"expected distinct images, one per line, in {path}; found {len(names)} lines with "
            f"{len(set(names))} distinct entries"
        )
    return lines


def _take_listed(domain: Domain, lines: Sequence[tuple[int, str]], path: Path) -> Domain:
    """Return the domain restricted to the images of a list.

    A line is an identifier, or the name of its file; either may have spaces. What follows it after a space,
    such as a label, is ignored.
    """
    index: dict[str, list[int]] = {}
    for i, identifier in enumerate(domain.ids):
        for name in {identifier, identifier.split("/")[-1]}:
            index.setdefault(name, []).append(i)
    names = [line if line in index else line.split()[0] for _, line in lines]
    missing = [line for line, name in zip(lines, names, strict=True) if name not in index]
    if missing:
        shown = ", ".join(f"{text!r} (line {number})" for number, text in missing[:3])
        raise InputError(
            f"{len(missing)} of the {len(names)} images listed in {path} are not in {domain.name}: "
            f"{shown}{', …' if len(missing) > 3 else ''}"
        )
    positions = [i for name in names for i in index[name]]
    if len(positions) != len(names) or len(set(positions)) != len(positions):
        raise InputError(
            f"{path} does not name every image once: its {len(names)} lines stand for "
            f"{len(set(positions))} images of {domain.name}; list them as <class>/<file>"
        )
    return domain.take(positions)
