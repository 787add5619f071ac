"""Where a tuning run begins: at its first step, or where an interrupted one was saved."""

from __future__ import annotations

from pathlib import Path

from ...engine.bundle.bundle import Bundle, check_unused_head
from ...engine.errors import InputError
from ...engine.ordinary_files import read_json
from .context_training import TrainingState
from .tuning_run import TuningRun


def get_progress_path(out: Path) -> Path:
    """Return the path for the progress of a run, given the path of its results."""
    return out.with_suffix(".progress.npz")


def begin_training(
    run: TuningRun, out: Path, name: str, *, resume: bool, overwrite: bool
) -> TrainingState | None:
    """Return the state to begin with, or refuse to lose what an earlier run has saved.

    There is none where an earlier run has done everything.

    Args:
        run: the run.
        out: its results file.
        name: name of the head that it will store.
        resume: continue an interrupted run, if there is one.
        overwrite: discard an interrupted run, or existing results.

    Raises:
        InputError: there are results, an interrupted run or a head of this name, and they are not to be
            replaced.
        StateError: the saved progress is damaged, or of another run.
        BundleError: the head would change the images, and be in use where none is selected.
    """
    if run.spec.changes_images:
        check_unused_head(name, used=name == run.bundle.manifest.head_name)
    progress, seed = get_progress_path(out), run.spec.seed
    if progress.exists() and resume:
        return run.training.load(progress, run.initial, seed)
    if resume and out.exists() and _is_complete(run, out, name):
        return None
    if not overwrite:
        check_unused(run.bundle, out, name)
    progress.unlink(missing_ok=True)
    return run.training.init(run.initial, seed)


def check_unused(bundle: Bundle, out: Path, name: str) -> None:
    """Refuse to replace what an earlier run has saved.

    Args:
        bundle: the bundle that the head will be stored in.
        out: the results file.
        name: name of the head.

    Raises:
        InputError: there are results, an interrupted run or a head of this name.
    """
    progress = get_progress_path(out)
    if name in bundle.manifest.heads:
        raise InputError(
            f"{bundle.path} has a head {name} already; give another name with --as, or replace it with "
            "--overwrite"
        )
    if progress.exists():
        raise InputError(
            f"{progress} is of an interrupted run: continue it with --resume, or give --overwrite"
        )
    if out.exists():
        raise InputError(
            f"{out} exists, perhaps with results of another run: name another file with --out, or replace it "
            "with --overwrite"
        )


def _is_complete(run: TuningRun, out: Path, name: str) -> bool:
    """Return whether a results file is of this very run, and its head is in the bundle.

    Raises:
        InputError: the file is of another run, or cannot be read.
    """
    try:
        content = read_json(out)
        tuning = content["tuning"]
        same = all(tuning[key] == value for key, value in run.training.key.items())
    except (OSError, ValueError, KeyError, TypeError):
        same = False
    if not same or not content.get("complete") or content.get("head") != name:
        raise InputError(
            f"{out} is not of this run, and there is no {get_progress_path(out)} to continue; leave out "
            "--resume"
        )
    return name in run.bundle.manifest.heads
