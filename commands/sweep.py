"""`fozo sweep`."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .adapt import DEFAULT_METHODS, adapt
from .options import QUIET, Numbers
from .progress import Progress

if TYPE_CHECKING:
    from ..eval.sweep.events import Runner
    from ..eval.sweep.folder import Sweep

# What is streamed, and how: the same options as of `fozo adapt`.
_SHARED = (
    "dataset",
    "data",
    "clean",
    "labels",
    "generate_from",
    "frost_textures",
    "corruptions",
    "subset",
    "subset_list",
    "classes",
    "batch_size",
    "seed",
    "provider",
)
_ADAPT = {option.name: option for option in adapt.params}


@click.command(params=[_ADAPT[name] for name in _SHARED])
@click.argument("bundles", type=click.Path(path_type=Path), nargs=-1)
@click.option(
    "-m",
    "--method",
    "methods",
    multiple=True,
    default=DEFAULT_METHODS,
    show_default=True,
    metavar="[LABEL=]NAME[:OPTION=VALUE,…]",
    help="Methods; repeat it. See: fozo methods.",
)
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    default=("fp32",),
    show_default=True,
    help="Graphs of the bundles, e.g. int8; repeat it.",
)
@click.option(
    "--severities",
    "--severity",
    "severities",
    type=Numbers(1, 5),
    default="5",
    show_default=True,
    help="Of the corruptions: one, or several like 1-5.",
)
@click.option(
    "--seeds",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="Repeat everything with so many seeds, counting up from --seed.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default="sweep",
    show_default=True,
    help="Folder of the sweep. What is finished there is not done again.",
)
@click.option(
    "--processes",
    type=click.IntRange(1),
    help="Cells at a time on this machine; default: as many as it has processors, over --threads.",
)
@click.option(
    "--threads",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Processors per cell. With 1, none waits for another; with more, fewer processes take less memory."
    " Results do not depend on it.",
)
@click.option(
    "--retries",
    type=click.IntRange(0),
    default=2,
    show_default=True,
    help="How often a cell is begun again after its process died or memory ran out.",
)
@click.option(
    "--ray",
    "address",
    metavar="auto|HOST:PORT",
    help="Compute on a running Ray cluster, with --threads processors per cell.",
)
@click.option(
    "--ray-env",
    "environment",
    multiple=True,
    metavar="NAME=VALUE",
    help="Variable of the processes on the cluster, such as PYTHONPATH; repeat it.",
)
@click.option("--json", "as_json", is_flag=True, help="Print averages as JSON, instead of tables.")
@QUIET
def sweep(
    bundles: tuple[Path, ...],
    methods: tuple[str, ...],
    out: Path,
    processes: int | None,
    threads: int,
    retries: int,
    address: str | None,
    environment: tuple[str, ...],
    as_json: bool,
    quiet: bool,
    **grid: Any,
) -> None:
    """Run a grid: BUNDLES (default: ./bundle) × precisions × methods × corruptions × severities × seeds.

    Every cell is a stream of its own that begins with nothing learnt. A finished cell is a file in OUT/cells;
    the same command again goes on where it was interrupted, and with more of anything adds to it.

    \b
    Examples:
      fozo sweep --dataset imagenet-c --data IMAGENET_C --severities 1-5 --out night
      fozo sweep vit deit --precision fp32 --precision int8 -m no_adapt -m fozo --subset 5000
      fozo sweep --dataset imagenet-c --data /shared/IMAGENET_C --ray auto
    """
    from ..eval.sweep.folder import Sweep
    from ..eval.sweep.plan import plan

    runner = _runner(processes, threads, retries, address, environment)
    jobs = plan(bundles or (Path("bundle"),), methods, **grid)
    stored = Sweep.open(out, jobs)
    for note in stored.notes:
        click.echo(f"Warning: {note}", err=True)
    done = len(stored.finished)
    click.echo(f"{len(jobs):,} cells, {done:,} of them finished in {out}", err=as_json)
    try:
        _run(stored, runner, quiet)
    finally:
        _report(stored, as_json)
    stored.check_failures()


def _runner(
    processes: int | None, threads: int, retries: int, address: str | None, environment: Sequence[str]
) -> Runner:
    from ..eval.sweep.cluster import run_on_ray
    from ..eval.sweep.local import default_processes, run_locally

    if address is None:
        if environment:
            raise click.UsageError("--ray-env goes with --ray")
        count = processes or default_processes(threads)
        return functools.partial(run_locally, processes=count, threads=threads, retries=retries)
    if processes is not None:
        raise click.UsageError(
            "--processes is for this machine; on a cluster, --threads says what a cell takes"
        )
    pairs = [each.partition("=") for each in environment]
    if not all(name and equals for name, equals, _ in pairs):
        raise click.UsageError(f"expected --ray-env NAME=VALUE, found {' '.join(environment)}")
    variables = {name: value for name, _, value in pairs}
    return functools.partial(
        run_on_ray, address=address, threads=threads, retries=retries, environment=variables
    )


def _run(stored: Sweep, runner: Runner, quiet: bool) -> None:
    clear = "\r\033[K" if sys.stderr.isatty() and not quiet else ""  # the progress bar is there
    with Progress(sum(job.cell.images for job in stored.pending), quiet) as advance:
        for images in stored.run(runner, lambda line: click.echo(f"{clear}{line}", err=True)):
            advance(images)


def _report(sweep: Sweep, as_json: bool) -> None:
    """Write the tables of the finished cells, and print averages."""
    from ..eval.sweep.sweep_summary import summary_document, summary_text

    graphs = sweep.save_tables()
    if as_json:
        click.echo(json.dumps(summary_document(sweep, graphs), indent=1, ensure_ascii=False))
    else:
        click.echo(summary_text(sweep, graphs))
