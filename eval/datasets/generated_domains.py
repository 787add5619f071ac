"""Domains whose corruptions are computed while they are streamed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..corruptions.corruption_registry import FROST, NAMES, corrupt
from ..corruptions.weather import load_frost_textures
from .corruption_names import CLEAN, check_names, check_severities
from .domain import Domain, Pixels


def generate_domains(
    clean: Domain, severity: int, corruptions: Sequence[str], seed: int, textures: Path | None = None
) -> list[Domain]:
    """Return corrupted versions of clean images, computed while streaming; `clean` names the originals.

    Raises:
        InputError: there is no such corruption, the severity is not in 1..5, or frost is named and the folder
            `textures` does not hold its textures.
    """
    check_names(corruptions, (*NAMES, CLEAN), "the generator")
    check_severities([severity])
    if FROST in corruptions:
        load_frost_textures(textures)
    return [
        clean if name == CLEAN else _corrupt_domain(clean, name, severity, seed, textures)
        for name in corruptions
    ]


def generate_at_severities(
    clean: Domain, severities: Sequence[int], corruptions: Sequence[str], seed: int, textures: Path | None
) -> list[Domain]:
    """Return all corruptions at each severity in turn; clean images have no severity and come last."""
    turns = [generate_domains(clean, severity, corruptions, seed, textures) for severity in severities]
    return [domain for turn in turns for domain in turn if domain.name != CLEAN or turn is turns[-1]]


def _corrupt_domain(clean: Domain, name: str, severity: int, seed: int, textures: Path | None) -> Domain:
    def load(index: int) -> Pixels:
        image_id = clean.ids[index]
        return corrupt(clean.load(index), name, severity, image_id=image_id, seed=seed, textures=textures)

    return Domain(
        name,
        clean.ids,
        clean.labels,
        load,
        generated=True,
        severity=severity,
        reader=clean.reader,
        left_out=clean.left_out,
        notes=clean.notes,
    )
