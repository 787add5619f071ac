"""An evaluation that saves itself and continues where it was interrupted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path

from ...engine.errors import InputError
from ...engine.files import claim_file, remove_temporaries
from ..results import partial_results
from ..results.outcome import DomainResult
from ..results.results_file import read_results
from .experiment import Experiment

OnDomain = Callable[[int, DomainResult], None]


class Start(Enum):
    """Starting point of a run."""

    BEGINNING = "beginning"
    NOTHING_SAVED = "nothing to continue"
    CONTINUED = "continued"
    COMPLETE = "complete"


@contextmanager
def claim_results(out: Path) -> Iterator[None]:
    """Keep other runs away from a results file and its progress while the block runs.

    Files that killed runs have left beside them are removed.

    Raises:
        OutputError: another run writes this file.
    """
    with claim_file(out):
        remove_temporaries(partial_results.get_path(out))
        yield


def start_run(experiment: Experiment, out: Path, *, resume: bool, overwrite: bool) -> Start:
    """Restore what an earlier run has saved, or refuse to lose it.

    Args:
        experiment: the experiment to run; receives results that were saved before.
        out: the results file.
        resume: continue an interrupted run.
        overwrite: discard an interrupted run, or existing results.

    Returns:
        The starting point. There is nothing left to do for a complete run. An incomplete one whose progress
        is gone starts anew.

    Raises:
        InputError: an interrupted run is neither to be continued nor discarded, existing results are not to
            be discarded, or the file holds results of another run.
        StateError: the progress is damaged, or of another run.
    """
    progress = partial_results.get_path(out)
    if progress.exists() and resume:
        experiment.resume(progress)
        return Start.CONTINUED
    if progress.exists() and not overwrite:
        raise InputError(
            f"{progress} is of an interrupted run: continue it with --resume, or give --overwrite"
        )
    if out.exists() and not (resume or overwrite):
        raise InputError(
            f"{out} exists, perhaps with results of another run: name another file with --out, or replace it "
            "with --overwrite"
        )
    progress.unlink(missing_ok=True)
    if resume and out.exists():
        results = read_results(out)
        if results.key_sha256 != experiment.key_sha256:
            raise InputError(
                f"{out} is not of this run, and there is no {progress} to continue; name another file with "
                "--out, or replace it with --overwrite"
            )
        if results.complete:
            experiment.runs = results.runs
            return Start.COMPLETE
    return Start.NOTHING_SAVED if resume else Start.BEGINNING


def run_and_save(
    experiment: Experiment,
    out: Path,
    *,
    save_every: float,
    on_images: Callable[[int], None] = lambda count: None,
    on_domain: OnDomain = lambda seed, domain: None,
    on_interruption: Callable[[], None] = lambda: None,
) -> None:
    """Run an experiment to its end, and save its results and its progress.

    Results are written after every domain, progress then and every `save_every` seconds, and both where the
    run is interrupted by any error or by Ctrl-C. Progress is removed when the run is complete.

    Args:
        experiment: the experiment to run, after `start_run`.
        out: the results file.
        save_every: seconds of work that a crash may cost.
        on_images: called with the number of images of every batch, and first with those of an earlier run.
        on_domain: called once with each domain and its seed when the domain is complete, and with those that
            an interruption leaves incomplete.
        on_interruption: called after the results of an interrupted run are saved.

    Raises:
        OutputError: a file cannot be written.
    """
    progress = partial_results.get_path(out)
    announce = _DomainReports(experiment, on_domain)
    last_save = time.monotonic()
    try:
        announce.report_complete()
        on_images(experiment.processed_images)
        for images in experiment.run():
            on_images(images)
            finished = announce.report_complete()
            if finished or time.monotonic() - last_save >= save_every:
                experiment.save_progress(progress)
                last_save = time.monotonic()
            if finished:  # after the progress: a killed run never leaves results that cannot be continued
                experiment.results.save(out)
    except BaseException:
        if experiment.processed_images:
            experiment.save_progress(progress)
            announce.report_all()
            experiment.results.save(out)
            on_interruption()
        raise
    experiment.results.save(out)
    progress.unlink(missing_ok=True)


class _DomainReports:
    """Reports of the domains of an experiment, each of them once."""

    def __init__(self, experiment: Experiment, on_domain: OnDomain) -> None:
        self._experiment, self._on_domain, self._count = experiment, on_domain, 0

    def report_complete(self) -> bool:
        """Report domains that have become complete, and return whether there were any."""
        return self._report([pair for pair in self._pending() if pair[1].complete])

    def report_all(self) -> None:
        """Report the domains that were begun, complete or not."""
        self._report(self._pending())

    def _pending(self) -> list[tuple[int, DomainResult]]:
        pairs = [(run.seed, domain) for run in self._experiment.runs for domain in run.domains]
        return pairs[self._count :]

    def _report(self, pairs: list[tuple[int, DomainResult]]) -> bool:
        for seed, domain in pairs:
            self._on_domain(seed, domain)
        self._count += len(pairs)
        return bool(pairs)
