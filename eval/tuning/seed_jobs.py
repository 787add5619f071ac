"""Several runs that differ in their seeds: where each is saved, and the name of its head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SeedJob:
    """One of several runs.

    Attributes:
        seed: of the run.
        head: name of the head that it stores.
        out: its results file.
    """

    seed: int
    head: str
    out: Path


def plan_jobs(seeds: Sequence[int], head: str, out: Path) -> list[SeedJob]:
    """Return a run for each seed; names tell them apart where there are several.

    >>> [(job.head, str(job.out)) for job in plan_jobs((1, 2), "pets", Path("tuning.json"))]
    [('pets-1', 'tuning-1.json'), ('pets-2', 'tuning-2.json')]
    """
    if len(seeds) == 1:
        return [SeedJob(seeds[0], head, out)]
    return [SeedJob(seed, f"{head}-{seed}", out.with_stem(f"{out.stem}-{seed}")) for seed in seeds]
