"""`fozo adapt`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..engine.errors import InputError
from .options import BUNDLE, FILE, FOLDER, PROVIDER
from .progress import Progress

if TYPE_CHECKING:
    from ..eval.experiment import Experiment
    from ..eval.runner import DomainResult

DEFAULT_METHODS = ("no_adapt", "shift", "fozo")


@click.command()
@BUNDLE
@click.option(
    "--dataset",
    type=click.Choice(["imagenet-c", "imagefolder", "demo"]),
    default="imagenet-c",
    show_default=True,
    help="Layout of the data; demo is embedded and needs no --data.",
)
@click.option("--data", type=FOLDER, help="Folder with the data, in the official layout of the data set.")
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
    help="Methods to compare; repeat it. See: fozo methods.",
)
@click.option(
    "--setting",
    type=click.Choice(["reset", "continual"]),
    default="reset",
    show_default=True,
    help="Forget between corruptions, or carry on.",
)
@click.option(
    "--severity", type=click.IntRange(1, 5), default=5, show_default=True, help="Of the corruptions."
)
@click.option("--corruptions", help="Comma-separated; default: all of the data set.")
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
    type=click.Choice(["all", "present"]),
    default="all",
    show_default=True,
    help="Predict among all classes, or only those present in the data.",
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
    "--provider",
    type=PROVIDER,
    default="cpu",
    show_default=True,
    help="Who computes; openvino needs onnxruntime-openvino in place of onnxruntime.",
)
@click.option("--precision", default="fp32", show_default=True, help="Which graph of the bundle, e.g. int8.")
@click.option("--workers", type=int, help="Threads that compute; default: as tuned, or all processors.")
@click.option("--micro-batch", type=int, help="Images per call of the runtime; results do not depend on it.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default="results.json",
    show_default=True,
    help="Where results go; a picture goes beside it if matplotlib is installed.",
)
@click.option("--quiet", is_flag=True, help="No progress bar.")
def adapt(bundle: Path, methods: tuple[str, ...], out: Path, quiet: bool, **options: Any) -> None:
    """Adapt a BUNDLE (default: ./bundle) over corrupted streams and compare methods side by side.

    \b
    Examples:
      fozo adapt --dataset imagenet-c --data IMAGENET_C --subset 5k --setting continual
      fozo adapt --dataset imagefolder --data DIR -m no_adapt -m fozo:shift=origin,samples=2
    """
    from ..engine.files import check_writable
    from ..eval.experiment import prepare

    if out.suffix == ".png":
        raise InputError(f"{out} is where the picture goes; name a .json file with --out")
    check_writable(out)  # fails now and not after the work
    experiment = prepare(bundle, methods, **options)
    with experiment.network:
        _run_experiment(experiment, out, quiet)
    title = f"{experiment.bundle.manifest.model}: {experiment.protocol.describe()}"
    results = experiment.results
    del experiment  # and the network with it: a picture takes memory of its own
    _draw(out.with_suffix(".png"), results, title)


def _run_experiment(experiment: Experiment, out: Path, quiet: bool) -> None:
    from ..eval import table

    click.echo(f"{experiment.bundle.manifest.model} {experiment.precision}: {experiment.protocol.describe()}")
    click.echo(table.header(list(experiment.adapters)))
    try:
        with Progress(experiment.images, quiet) as advance:
            for result in experiment.run(on_batch=advance):
                if result.complete:
                    click.echo("\r\033[K" if sys.stderr.isatty() and not quiet else "", nl=False, err=True)
                    click.echo(table.row(result))
                    experiment.save(out)
    except BaseException:
        if experiment.started:
            if not experiment.results[-1].complete:
                click.echo(table.row(experiment.results[-1]))
            experiment.save(out)
            click.echo(f"Incomplete: what was measured so far is in {out}")
        raise
    click.echo("\n" + table.summary(experiment.results))
    click.echo(f"\nResults: {out}")


def _draw(path: Path, results: Sequence[DomainResult], title: str) -> None:
    from ..eval.plot import save_plot

    try:
        save_plot(path, results, title)
        click.echo(f"Picture: {path}")
    except InputError as error:
        click.echo(f"No picture: {error}")
