"""`fozo adapt`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..engine.errors import InputError
from .options import BUNDLE, FILE, FOLDER, MICRO_BATCH, ONE_PROVIDER, QUIET, WORKERS, Names, Numbers
from .progress import Progress

if TYPE_CHECKING:
    from ..eval.results.outcome import DomainResult
    from ..eval.streaming.experiment import Experiment
    from ..eval.streaming.saved_run import Start

DEFAULT_METHODS = ("no_adapt", "shift", "fozo", "pizo")
DATASETS = (
    "imagenet-c",
    "imagenet",
    "imagenet-r",
    "imagenet-a",
    "imagenet-v2",
    "imagenet-sketch",
    "cifar10-c",
    "cifar100-c",
    "imagefolder",
    "demo",
)
SETTINGS = ("reset", "continual", "rounds", "mixed", "label_shift")


@click.command()
@BUNDLE
@click.option(
    "--dataset",
    type=click.Choice(DATASETS),
    default="imagenet-c",
    show_default=True,
    help="Layout of the data, see docs/datasets.md; demo is embedded and needs no --data.",
)
@click.option(
    "--data",
    type=FOLDER,
    help="Folder with the data, as its archives unpack; for imagenet-v2 one variant's folder, or what holds"
    " several.",
)
@click.option(
    "--clean",
    type=FOLDER,
    help="For imagenet-c: clean validation images by class folder, streamed at the end: what does adaptation"
    " cost?",
)
@click.option(
    "--labels",
    type=FILE,
    help="Classes of clean images that lie side by side in one folder: lines `<file> <0..999>` (val.txt) or"
    " `<file>,<wnid>` (LOC_val_solution.csv). For imagenet, --clean and --generate-from.",
)
@click.option(
    "--generate-from",
    type=FOLDER,
    help="For imagenet-c: clean images by class folder; corruptions are generated while streaming"
    " (not the official ImageNet-C, and labelled so).",
)
@click.option(
    "--frost-textures",
    type=FOLDER,
    help="Folder with frost1.png to frost6.jpg of ImageNet-C's code; without it, no frost is generated.",
)
@click.option(
    "-m",
    "--method",
    "methods",
    multiple=True,
    default=DEFAULT_METHODS,
    show_default=True,
    metavar="[LABEL=]NAME[:OPTION=VALUE,…]",
    help="Methods to compare; repeat it. The others are compared with the first. See: fozo methods.",
)
@click.option(
    "--setting",
    type=click.Choice(SETTINGS),
    default="reset",
    show_default=True,
    help="Forget between corruptions; carry on; carry on through several rounds; mix all corruptions in one"
    " stream; or forget between them and order each by class.",
)
@click.option("--rounds", type=click.IntRange(1), help="How many, for --setting rounds; default: 10.")
@click.option(
    "--concentration",
    type=click.FloatRange(0, min_open=True),
    help="For --setting label_shift: not strictly by class, but as a Dirichlet distribution spreads classes;"
    " 0.1 is nearly sorted, 10 hardly.",
)
@click.option(
    "--severity",
    "severities",
    type=Numbers(1, 5),
    default="5",
    show_default=True,
    help="Of the corruptions: one, or several like 1-5, which give the mean corruption error.",
)
@click.option(
    "--corruptions",
    type=Names(),
    help="Comma-separated; default: all 15 (with --generate-from without frost, unless there are textures)."
    " By name also speckle_noise, gaussian_blur, spatter, saturate.",
)
@click.option(
    "--subset",
    default="all",
    show_default=True,
    metavar="all|50k|5k|N",
    help="Images per corruption; 5k and N are seeded choices unless --subset-list is given.",
)
@click.option("--subset-list", type=FILE, help="A published list of images, <wnid>/<file> per line.")
@click.option(
    "--classes",
    type=click.Choice(["auto", "all", "present"]),
    default="auto",
    show_default=True,
    help="Predict among the classes of the data set (200 in imagenet-r and -a), all of the model's, or only"
    " those that occur in the data (before a subset is chosen).",
)
@click.option("--batch-size", type=click.IntRange(1), default=64, show_default=True, help="Images per batch.")
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=2000,
    show_default=True,
    help="Of order, subset, generated corruptions and methods.",
)
@click.option(
    "--seeds",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Repeat everything with so many seeds, counting up; tables then say mean ± standard deviation.",
)
@ONE_PROVIDER
@click.option("--precision", default="fp32", show_default=True, help="Which graph of the bundle, e.g. int8.")
@WORKERS
@MICRO_BATCH
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default="results.json",
    show_default=True,
    help="Where results go; a picture goes beside it if matplotlib is installed.",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Continue an interrupted run; results are those of one without interruption.",
)
@click.option("--overwrite", is_flag=True, help="Start anew although an interrupted run could be continued.")
@click.option(
    "--save-every",
    type=click.FloatRange(0),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="How much of the work an interruption may cost.",
)
@QUIET
def adapt(
    bundle: Path,
    methods: tuple[str, ...],
    out: Path,
    resume: bool,
    overwrite: bool,
    save_every: float,
    quiet: bool,
    **options: Any,
) -> None:
    """Adapt a BUNDLE (default: ./bundle) over corrupted streams and compare methods side by side.

    \b
    Examples:
      fozo adapt --dataset imagenet-c --data IMAGENET_C --subset 5k --setting continual
      fozo adapt --dataset imagenet-r --data IMAGENET_R --seeds 3
      fozo adapt --dataset imagefolder --data DIR -m no_adapt -m fozo:shift=origin,samples=2
    """
    from ..engine.files import check_writable
    from ..eval.streaming.experiment import prepare
    from ..eval.streaming.saved_run import Start, start_run

    if out.suffix != ".json":
        raise InputError(f"expected a .json file for --out, found {out}; picture and progress go beside it")
    check_writable(out)  # fails now and not after the work
    experiment = prepare(bundle, methods, **options)
    with experiment.network:
        start = start_run(experiment, out, resume=resume, overwrite=overwrite)
        _print_start(experiment, out, start)
        if start is not Start.COMPLETE:
            _run(experiment, out, save_every, quiet)
    title = f"{experiment.bundle.manifest.model}: {experiment.protocol.describe()}"
    runs = experiment.runs
    del experiment  # and the network with it: a picture takes memory of its own
    _draw(out.with_suffix(".png"), runs, title)


def _print_start(experiment: Experiment, out: Path, start: Start) -> None:
    from ..eval.results import partial_results, table
    from ..eval.streaming.saved_run import Start

    if start is Start.CONTINUED:
        done = experiment.processed_images
        click.echo(f"Continuing after {done:,} of {experiment.images:,} images.")
    elif start is Start.NOTHING_SAVED:
        click.echo(f"There is no progress {partial_results.path_of(out)} to continue: starting anew.")
    elif start is Start.COMPLETE:
        click.echo(f"{out} is complete already.\n\n{table.summary(experiment.runs)}\n")


def _run(experiment: Experiment, out: Path, save_every: float, quiet: bool) -> None:
    from ..eval.results import table
    from ..eval.streaming.saved_run import run_and_save

    click.echo(f"{experiment.bundle.manifest.model} {experiment.precision}: {experiment.protocol.describe()}")
    for deviation in experiment.deviations:
        click.echo(f"Warning: found {deviation}; this is not the published benchmark", err=True)
    with Progress(experiment.images, quiet) as advance:
        run_and_save(
            experiment,
            out,
            save_every=save_every,
            on_images=advance,
            on_domain=_row_printer(experiment, quiet),
            on_interruption=lambda: click.echo(
                f"Incomplete: what was measured so far is in {out}; --resume continues"
            ),
        )
    click.echo("\n" + table.summary(experiment.runs))
    click.echo(f"\nResults: {out}")


def _row_printer(experiment: Experiment, quiet: bool) -> Callable[[int, DomainResult], None]:
    """Return what prints the row of a domain, below a header for each seed."""
    from ..eval.results import table

    protocol, headed = experiment.protocol, set[int]()

    def print_row(seed: int, domain: DomainResult) -> None:
        click.echo("\r\033[K" if sys.stderr.isatty() and not quiet else "", nl=False, err=True)
        if seed not in headed:
            headed.add(seed)
            title = f"seed {seed}\n" if len(protocol.seeds) > 1 else ""
            click.echo(title + table.header(list(experiment.methods)))
        click.echo(table.row(domain, protocol))

    return print_row


def _draw(path: Path, runs: Any, title: str) -> None:
    from ..eval.results.plot import save_plot

    try:
        save_plot(path, runs, title)
        click.echo(f"Picture: {path}")
    except InputError as error:
        click.echo(f"No picture: {error}")
