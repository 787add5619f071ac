"""Running an evaluation from a command: progress, rows of its table, summary and picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..engine.errors import InputError
from .image_options import print_notes
from .options import Decorator, out_option, overwrite_option
from .progress import Progress, clear_bar

if TYPE_CHECKING:
    from ..eval.results.outcome import DomainResult
    from ..eval.streaming.experiment import Experiment
    from ..eval.streaming.saved_run import Start

_OPTIONS: tuple[Decorator, ...] = (
    out_option(
        "results.json", "File for the results; a picture is written beside it if matplotlib is installed."
    ),
    click.option(
        "--resume",
        is_flag=True,
        help="Continue an interrupted run; the results are those of one without interruption.",
    ),
    overwrite_option("Replace existing results, and those of an interrupted run."),
    click.option(
        "--save-every",
        type=click.FloatRange(0),
        default=30.0,
        show_default=True,
        metavar="SECONDS",
        help="How often progress is saved: the most work that an interruption loses.",
    ),
)


def result_options(command: Any) -> Any:
    """Add the options about results and progress to a command."""
    for decorator in reversed(_OPTIONS):
        command = decorator(command)
    return command


def run_experiment(
    prepare: Callable[[], Experiment],
    out: Path,
    *,
    resume: bool,
    overwrite: bool,
    save_every: float,
    quiet: bool,
) -> None:
    """Run an evaluation and print, save and draw its results.

    Args:
        prepare: opens the evaluation.
        out: the results file.
        resume, overwrite, save_every: as the options.
        quiet: show no progress bar.

    Raises:
        FozoError: something cannot be used, computed or written.
    """
    from ..engine.files import check_writable
    from ..eval.streaming.saved_run import Start, claim_results, start_run

    if out.suffix != ".json":
        raise InputError(f"expected a .json file for --out, found {out}; picture and progress go beside it")
    check_writable(out)  # fails now and not after the work
    experiment = prepare()
    with experiment.method_networks, claim_results(out):
        start = start_run(experiment, out, resume=resume, overwrite=overwrite)
        _print_start(experiment, out, start)
        if start is not Start.COMPLETE:
            _run(experiment, out, save_every, quiet)
    title = f"{experiment.bundle.manifest.model}: {experiment.protocol.describe()}"
    runs = experiment.runs
    del experiment  # and the network with it: a picture takes memory of its own
    _draw(out.with_suffix(".png"), runs, title)


def _print_start(experiment: Experiment, out: Path, start: Start) -> None:
    from ..engine.bundle.origin import describe_origin
    from ..eval.results import partial_results, table
    from ..eval.streaming.saved_run import Start

    if start is Start.CONTINUED:
        done = experiment.processed_images
        click.echo(f"Continuing after {done:,} of {experiment.images:,} images.")
    elif start is Start.NOTHING_SAVED:
        click.echo(f"There is no progress {partial_results.get_path(out)} to continue: starting anew.")
    elif start is Start.COMPLETE:
        click.echo(f"{out} is complete already.\n\n{table.format_summary(experiment.runs)}")
        click.echo(f"{describe_origin(experiment.results.bundle)}\n")
        _print_published(experiment)


def _run(experiment: Experiment, out: Path, save_every: float, quiet: bool) -> None:
    from ..engine.bundle.origin import describe_origin
    from ..eval.results import table
    from ..eval.results.label_check import describe_chance
    from ..eval.results.seed_table import format_seed_table
    from ..eval.streaming.saved_run import run_and_save

    click.echo(f"{experiment.bundle.manifest.model} {experiment.precision}: {experiment.protocol.describe()}")
    for deviation in experiment.deviations:
        click.echo(f"Warning: found {deviation}; this is not the published benchmark", err=True)
    for obstacle in experiment.obstacles:
        click.echo(f"Warning: not comparable with the published figures: {obstacle}", err=True)
    with Progress(experiment.images, quiet) as advance:
        run_and_save(
            experiment,
            out,
            save_every=save_every,
            on_images=advance,
            on_domain=_make_row_printer(experiment, quiet),
            on_interruption=lambda: click.echo(
                f"Incomplete: what was measured so far is in {out}; --resume continues"
            ),
        )
    if len(experiment.protocol.seeds) > 1 and experiment.networks:
        click.echo(f"\nmean ± standard deviation over the seeds\n{format_seed_table(experiment.runs)}")
    click.echo("\n" + table.format_summary(experiment.runs))
    click.echo(describe_origin(experiment.results.bundle))
    _print_published(experiment)
    classes = experiment.network.info.classes
    if not experiment.networks and (suspicion := describe_chance(experiment.runs, classes)):
        click.echo(f"Warning: {suspicion}", err=True)
    print_notes(experiment.describe_data())
    click.echo(f"\nResults: {out}")


def _print_published(experiment: Experiment) -> None:
    """Print the figures of the recipe beside the measured ones, and what keeps them from comparing."""
    from ..eval.results.published_comparison import compare_with_published, format_comparison

    comparison = compare_with_published(experiment.results)
    if comparison is not None:
        click.echo(f"\n{format_comparison(comparison)}")


def _make_row_printer(experiment: Experiment, quiet: bool) -> Callable[[int, DomainResult], None]:
    """Return the function that prints the row of a domain, below a header for each seed."""
    from ..eval.results import table

    protocol, headed = experiment.protocol, set[int]()

    def print_row(seed: int, domain: DomainResult) -> None:
        clear_bar(quiet)
        if seed not in headed:
            headed.add(seed)
            title = f"seed {seed}\n" if len(protocol.seeds) > 1 else ""
            click.echo(title + table.format_header(list(experiment.methods)))
        click.echo(table.format_row(domain, protocol))

    return print_row


def _draw(path: Path, runs: Any, title: str) -> None:
    from ..eval.results.plot import save_plot

    try:
        save_plot(path, runs, title)
        click.echo(f"Picture: {path}")
    except InputError as error:
        click.echo(f"No picture: {error}")
