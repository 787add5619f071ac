"""`fozo predict`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ..engine.errors import BundleError, InputError
from .options import FILE, FOLDER, MICRO_BATCH, ONE_PROVIDER, WORKERS
from .progress import Progress

if TYPE_CHECKING:
    from ..engine.registry import AnyMethod
    from ..engine.runtime.network import Network
    from ..engine.streams.adapter import Adapter

STANDARD = "-"  # standard input or output


@click.command()
@click.argument("inputs", nargs=-1, metavar="[INPUTS]...")
@click.option("--bundle", type=FOLDER, default="bundle", show_default=True, help="What predicts.")
@click.option(
    "-m",
    "--method",
    default="pizo:domains=16",
    show_default=True,
    metavar="[LABEL=]NAME[:OPTION=VALUE,…]",
    help="How to adapt; no_adapt is not at all. See: fozo methods.",
)
@click.option("--precision", default="fp32", show_default=True, help="Which graph of the bundle, e.g. int8.")
@click.option("--batch-size", type=click.IntRange(1), default=64, show_default=True, help="Images per batch.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    default=STANDARD,
    show_default=True,
    help="Where predictions go, batch by batch; - is standard output.",
)
@click.option("--append", is_flag=True, help="Go on at the end of --out if it exists.")
@click.option("--overwrite", is_flag=True, help="Replace --out if it exists.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["csv", "jsonl"]),
    help="Default: jsonl if --out ends so (or in ndjson), else csv.",
)
@click.option(
    "--top", type=click.IntRange(1), default=1, show_default=True, help="How many classes per image."
)
@click.option(
    "--classes", type=FILE, help="Predict among these classes only: identifiers or indices, one per line."
)
@click.option(
    "--state",
    type=FILE,
    help="Carry what is learnt from run to run: loaded if there, saved at the end, on Ctrl-C and on errors.",
)
@click.option(
    "--on-error",
    type=click.Choice(["stop", "skip"]),
    help="At an unreadable image: stop (exit code 1), or skip it: give it a row with the error and go on."
    " Default: skip with --watch, else stop.",
)
@click.option("--max-images", type=click.IntRange(1), help="End after so many rows.")
@click.option("--watch", type=FOLDER, help="Take images as they appear in a folder, instead of INPUTS.")
@click.option("--new-only", is_flag=True, help="With --watch: leave out what is there already.")
@click.option(
    "--poll",
    type=click.FloatRange(0.01),
    default=0.5,
    show_default=True,
    help="With --watch: seconds between two looks into the folder.",
)
@click.option(
    "--max-wait",
    type=click.FloatRange(0),
    default=2.0,
    show_default=True,
    help="With --watch: seconds that an image waits for its batch to fill up.",
)
@click.option(
    "--idle-exit", type=click.FloatRange(0), help="With --watch: end after so many seconds without news."
)
@click.option(
    "--seed", type=click.IntRange(0), default=2000, show_default=True, help="Of the method's random draws."
)
@ONE_PROVIDER
@WORKERS
@MICRO_BATCH
@click.option("--quiet", is_flag=True, help="No progress bar, no summary.")
def predict(
    inputs: tuple[str, ...],
    bundle: Path,
    method: str,
    classes: Path | None,
    seed: int,
    out: Path,
    form: str | None,
    top: int,
    append: bool,
    overwrite: bool,
    state: Path | None,
    watch: Path | None,
    new_only: bool,
    poll: float,
    max_wait: float,
    idle_exit: float | None,
    on_error: str | None,
    max_images: int | None,
    batch_size: int,
    quiet: bool,
    **engine: Any,
) -> None:
    """Predict unlabelled images with a bundle, and adapt to them on the way.

    INPUTS are image files, folders (with all that is below), quoted patterns, and - for a list of paths on
    standard input, one per line. Every image gets a row, in the order in which they arrive.

    \b
    Examples:
      fozo predict photos/ --out predictions.csv
      fozo predict 'cam1/**/*.jpg' --top 5 --out predictions.jsonl --state cam1.npz
      find photos -name '*.jpg' -mtime -1 | fozo predict - -m no_adapt | head
      fozo predict --watch /srv/cam1 --batch-size 8 --state cam1.npz --out cam1.csv --append
    """
    from ..engine.bundle.bundle import Bundle
    from ..engine.registry import parse_method
    from ..engine.runtime.network import Network
    from ..eval.predict.class_list import read_class_list
    from ..eval.predict.image_paths import resolve_inputs, watch_folder
    from ..eval.predict.predict import predict as predict_images
    from ..eval.predict.prediction_run import PredictionRun
    from ..eval.predict.prediction_writer import PredictionWriter

    _check_together(inputs, watch, out, state)
    _, configured = parse_method(method)
    opened = Bundle.open(bundle)
    class_indices = None if classes is None else read_class_list(classes, opened.manifest)
    writer = PredictionWriter(out, form, top, append=append, overwrite=overwrite)
    images = resolve_inputs(inputs) if watch is None else watch_folder(watch, poll, new_only, idle_exit)
    with Network.open(opened, **engine) as network:
        selected = network if class_indices is None else network.select(class_indices)
        adapter = _adapter(selected, configured, seed)
        run = PredictionRun(adapter, writer, state)
        rows = predict_images(
            adapter,
            images.paths,
            opened.manifest,
            classes=class_indices,
            batch_size=batch_size,
            top=top,
            skip_unreadable=on_error == "skip" if on_error else watch is not None,
            max_images=max_images,
            max_wait=max_wait,
            retry=images.retry,
            on_batch=run.on_batch,
        )
        if watch is not None and not quiet:
            click.echo(f"Watching {watch}; Ctrl-C ends", err=True)
        progress = _progress(images.count, max_images, quiet or writer.on_screen)
        run.write(rows, progress, lambda summary: None if quiet else click.echo(summary, err=True))


def _progress(count: int | None, limit: int | None, hidden: bool) -> Progress:
    """A bar where it is known how many images will come."""
    total = 0 if count is None else min(count, limit or count)
    return Progress(total, hidden or count is None)


def _check_together(inputs: Sequence[str], watch: Path | None, out: Path, state: Path | None) -> None:
    """Refuses what does not go together, and what would do nothing."""
    if bool(inputs) == (watch is not None):
        found = "both" if inputs else "neither"
        raise InputError(f"expected either INPUTS or --watch DIR, found {found}; see fozo predict --help")
    context = click.get_current_context()
    given = {
        flag
        for option in context.command.params
        if context.get_parameter_source(option.name or "") is ParameterSource.COMMANDLINE
        for flag in option.opts
    }
    alone = sorted(given & {"--new-only", "--poll", "--max-wait", "--idle-exit"})
    if alone and watch is None:
        raise InputError(f"{alone[0]} goes with --watch DIR")
    if {"--append", "--overwrite"} <= given:
        raise InputError("expected --append or --overwrite, found both; choose one")
    if str(out) == STANDARD and given & {"--append", "--overwrite"}:
        raise InputError("--append and --overwrite go with --out FILE")
    if state is not None and state.resolve() == out.resolve():
        raise InputError(f"--out and --state are the same file, {state}; name two")


def _adapter(network: Network, method: AnyMethod, seed: int) -> Adapter:
    from ..engine.streams.adapter import Adapter

    try:
        return Adapter(network, method, seed)
    except BundleError as error:
        raise BundleError(f"{error}; or predict without adapting: -m no_adapt") from error
