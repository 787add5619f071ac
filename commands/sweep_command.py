"""`fozo sweep`."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .console import echo_json
from .head_options import HEAD
from .options import FOLDER, PATH, QUIET, json_option, method_option, out_option, seeds_option
from .progress import Progress
from .stream_options import DEFAULT_METHODS, stream_options

if TYPE_CHECKING:
    from ..eval.sweep.events import Runner
    from ..eval.sweep.folder import Sweep


@click.command()
@click.argument("bundles", type=PATH, nargs=-1)
@method_option(DEFAULT_METHODS, "Methods to run")
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    default=("fp32",),
    show_default=True,
    help="Graphs of the bundles to run, such as int8; repeat it.",
)
@HEAD
@stream_options
@seeds_option(3)
@out_option("sweep", "Folder of the sweep; cells that are finished there are not run again.", FOLDER)
@click.option(
    "--processes",
    type=click.IntRange(1),
    help="Cells that run at the same time on this machine; default: its processors divided by --workers.",
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Threads that compute each cell. More of them and fewer processes take less memory. Results do not"
    " depend on it.",
)
@click.option(
    "--retries",
    type=click.IntRange(0),
    default=2,
    show_default=True,
    help="How often a cell is started again after its process died or ran out of memory.",
)
@click.option(
    "--ray",
    "address",
    metavar="auto|HOST:PORT",
    help="Compute on a running Ray cluster, with --workers processors per cell.",
)
@click.option(
    "--ray-env",
    "environment",
    multiple=True,
    metavar="NAME=VALUE",
    help="Environment variable for the processes on the cluster, such as PYTHONPATH; repeat it.",
)
@json_option("Print averages as JSON instead of tables.")
@QUIET
def sweep(
    bundles: tuple[Path, ...],
    methods: tuple[str, ...],
    precisions: tuple[str, ...],
    out: Path,
    processes: int | None,
    workers: int,
    retries: int,
    address: str | None,
    environment: tuple[str, ...],
    as_json: bool,
    quiet: bool,
    **grid: Any,
) -> None:
    """Run a grid: BUNDLES (default: ./bundle) × precisions × methods × corruptions × severities × seeds.

    Every cell is a stream of its own that starts afresh. A finished cell is a file in OUT/cells. Repeat an
    interrupted command to continue it; with further bundles, methods or seeds it adds cells.

    \b
    Examples:
      fozo sweep --dataset imagenet-c --data IMAGENET_C --severities 1-5 --out night
      fozo sweep vit deit --precision fp32 --precision int8 -m no_adapt -m fozo --subset 5000
      fozo sweep --dataset imagenet-c --data /shared/IMAGENET_C --ray auto
    """
    from ..engine.files import FOLDER_LOCK, hold_lock
    from ..eval.streaming.spec import EvaluationSpec
    from ..eval.sweep.folder import Sweep
    from ..eval.sweep.plan import plan

    runner = _choose_runner(processes, workers, retries, address, environment)
    folders = bundles or (Path("bundle"),)
    jobs = plan(EvaluationSpec.from_options(folders[0], methods, **grid), folders, precisions)
    stored = Sweep.open(out, jobs)
    for note in stored.notes:
        click.echo(f"Warning: {note}", err=True)
    done = len(stored.finished)
    click.echo(f"{len(jobs):,} cells, {done:,} of them finished in {out}", err=as_json)
    busy = f"another sweep is running in {out}; wait until it ends, or name another folder with --out"
    with hold_lock(out / FOLDER_LOCK, busy):
        try:
            _run(stored, runner, quiet)
        finally:
            _report(stored, as_json)
    stored.check_failures()


def _choose_runner(
    processes: int | None, workers: int, retries: int, address: str | None, environment: Sequence[str]
) -> Runner:
    from ..eval.sweep.cluster import run_on_ray
    from ..eval.sweep.local import default_processes, run_locally

    if address is None:
        if environment:
            raise click.UsageError("--ray-env goes with --ray")
        count = processes or default_processes(workers)
        return functools.partial(run_locally, processes=count, threads=workers, retries=retries)
    if processes is not None:
        raise click.UsageError(
            "--processes is for this machine; on a cluster, --workers sets the processors per cell"
        )
    pairs = [variable.partition("=") for variable in environment]
    if not all(name and equals for name, equals, _ in pairs):
        raise click.UsageError(f"expected --ray-env NAME=VALUE, found {' '.join(environment)}")
    variables = {name: value for name, _, value in pairs}
    return functools.partial(
        run_on_ray, address=address, threads=workers, retries=retries, environment=variables
    )


def _run(stored: Sweep, runner: Runner, quiet: bool) -> None:
    clear = "\r\033[K" if sys.stderr.isatty() and not quiet else ""  # the progress bar is there
    with Progress(sum(job.cell.images for job in stored.pending), quiet) as advance:
        for images in stored.run(runner, lambda line: click.echo(f"{clear}{line}", err=True)):
            advance(images)


def _report(sweep: Sweep, as_json: bool) -> None:
    """Write the tables of the finished cells, and print averages."""
    from ..eval.sweep.sweep_summary import build_summary, format_summary_text

    graphs = sweep.save_tables()
    if as_json:
        echo_json(json.dumps(build_summary(sweep, graphs), indent=1, ensure_ascii=False))
    else:
        click.echo(format_summary_text(sweep, graphs))
