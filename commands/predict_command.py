"""`fozo predict`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ..engine.errors import BundleError, InputError
from .head_options import HEAD, make_named_classes, template_options
from .image_options import on_error_option, print_notes, reading_options, take_reading
from .options import (
    BATCH_SIZE,
    BUNDLE,
    FILE,
    FOLDER,
    METHOD_FORM,
    MICRO_BATCH,
    PATH,
    PRECISION,
    PROVIDER,
    QUIET,
    WORKERS,
    out_option,
    overwrite_option,
    seed_option,
)
from .progress import Progress

if TYPE_CHECKING:
    from ..engine.registry import AnyMethod
    from ..engine.runtime.network import Network
    from ..engine.streams.adapter import Adapter
    from ..eval.predict.seen_images import SeenImages

STANDARD = "-"  # standard input or output
DEFAULT_METHOD, ZERO_SHOT = "pizo:domains=16", "no_adapt"


@click.command()
@BUNDLE
@click.argument("inputs", nargs=-1, metavar="[INPUTS]...")
@click.option(
    "--bundle",
    "named_bundle",
    type=PATH,
    help="The BUNDLE, in place of the first argument: all arguments are then INPUTS.",
)
@click.option(
    "-m",
    "--method",
    metavar=METHOD_FORM,
    help=f"How to adapt; {ZERO_SHOT} does not adapt. See: fozo methods. Default: {DEFAULT_METHOD}; with"
    f" --names {ZERO_SHOT}.",
)
@HEAD
@click.option(
    "--names",
    metavar="NAME,…",
    help="Predict among classes of these names, made for this run, for bundles exported with --clip.",
)
@template_options
@PRECISION
@BATCH_SIZE
@out_option(
    STANDARD,
    "File for the predictions, written batch by batch; - is standard output.",
    click.Path(path_type=Path, dir_okay=False, allow_dash=True),
)
@click.option("--append", is_flag=True, help="Append to --out if it exists.")
@overwrite_option("Replace --out if it exists.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["csv", "jsonl"]),
    help="Format of the predictions; default: jsonl if --out ends in .jsonl or .ndjson, else csv.",
)
@click.option(
    "--top",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Number of classes reported per image.",
)
@click.option(
    "--classes",
    type=FILE,
    help="File with the classes to predict among: identifiers, names or indices, one per line.",
)
@click.option(
    "--state",
    type=FILE,
    help="File that carries the adapted state from run to run: loaded if it exists; saved at the end, on"
    " Ctrl-C and on errors.",
)
@on_error_option(" and report the error in its row. Default: skip with --watch, else stop.", default=None)
@reading_options
@click.option("--max-images", type=click.IntRange(1), help="Stop after this many rows.")
@click.option("--watch", type=FOLDER, help="Predict images as they appear in a folder, instead of INPUTS.")
@click.option(
    "--new-only", is_flag=True, help="With --watch: ignore images that are there at the first start."
)
@click.option(
    "--poll",
    type=click.FloatRange(0.01),
    default=0.5,
    show_default=True,
    help="With --watch: seconds between two scans of the folder.",
)
@click.option(
    "--max-wait",
    type=click.FloatRange(0),
    default=2.0,
    show_default=True,
    help="With --watch: longest time in seconds that an image waits for its batch to fill.",
)
@click.option(
    "--idle-exit",
    type=click.FloatRange(0),
    help="With --watch: stop after this many seconds without a new image.",
)
@seed_option("Seed of the method.")
@PROVIDER
@WORKERS
@MICRO_BATCH
@QUIET
def predict(
    bundle: Path,
    named_bundle: Path | None,
    inputs: tuple[str, ...],
    method: str | None,
    head: str | None,
    names: str | None,
    templates: tuple[str, ...],
    template_list: str | None,
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
    """Predict unlabelled images with a BUNDLE (default: ./bundle), and adapt to them.

    INPUTS are image files, folders with their subfolders, quoted patterns, and - for a list of paths on
    standard input, one per line. Every image gets a row, in the order of arrival.

    \b
    Examples:
      fozo predict bundle photos/ --out predictions.csv
      fozo predict bundle 'cam1/**/*.jpg' --top 5 --out predictions.jsonl --state cam1.npz
      find photos -name '*.jpg' -mtime -1 | fozo predict bundle - -m no_adapt | head
      fozo predict photos/ --bundle clip --names 'cat, dog, empty street'
      fozo predict --watch /srv/cam1 --batch-size 8 --state cam1.npz --out cam1.csv --append
    """
    from ..data.image_reader import ImageReader, describe_files
    from ..engine.bundle.bundle import Bundle
    from ..engine.files import claim_file
    from ..engine.registry import count_pull_backs, list_activation_uses, parse_method
    from ..engine.runtime.class_text import open_class_text
    from ..engine.runtime.network import Network
    from ..eval.predict.class_list import read_class_list
    from ..eval.predict.image_paths import resolve_inputs, watch_folder
    from ..eval.predict.predict import predict as predict_images
    from ..eval.predict.prediction_run import PredictionRun
    from ..eval.predict.prediction_writer import PredictionWriter

    bundle, inputs = _choose_bundle(bundle, named_bundle, inputs)
    _check_together(inputs, watch, out, state)
    if head is not None and names is not None:
        raise InputError("expected --head or --names, found both; choose one")
    _, configured = parse_method(method or (DEFAULT_METHOD if names is None else ZERO_SHOT))
    opened = Bundle.open(bundle, head)
    made = make_named_classes(opened, names, templates, template_list, engine["workers"])
    manifest = opened.manifest if made is None else opened.manifest.use_head(made.describe("", ""))
    class_indices = None if classes is None else read_class_list(classes, manifest)
    reader = ImageReader(take_reading(engine))
    writer = PredictionWriter(out, form, top, append=append, overwrite=overwrite)
    memory = _open_memory(watch, state, out if append else None, quiet)
    images = (
        resolve_inputs(inputs, reader)
        if watch is None
        else watch_folder(watch, poll, new_only, idle_exit, memory, _make_suffix_note(quiet))
    )
    claimed = None if str(out) == STANDARD else out
    gradients, activations = count_pull_backs(configured) > 0, list_activation_uses([configured])
    with (
        claim_file(state),
        claim_file(claimed),
        Network.open(opened, gradients=gradients, activations=activations, **engine) as network,
    ):
        if made is not None:
            text = open_class_text(opened, made, workers=engine["workers"])
            network = network.with_classifier(made.weight, text)
        selected = network if class_indices is None else network.select(class_indices)
        adapter = _open_adapter(selected, configured, seed)
        run = PredictionRun(adapter, writer, state, memory)
        rows = predict_images(
            adapter,
            images.paths,
            manifest,
            classes=class_indices,
            batch_size=batch_size,
            top=top,
            skip_unreadable=on_error == "skip" if on_error else watch is not None,
            max_images=max_images,
            max_wait=max_wait,
            reader=reader,
            retry=images.retry,
            on_batch=run.on_batch,
        )
        if watch is not None and not quiet:
            click.echo(f"Watching {watch}; Ctrl-C ends", err=True)
        progress = _make_progress(images.count, max_images, quiet or writer.on_screen)
        run.write(rows, progress, lambda summary: None if quiet else click.echo(summary, err=True))
    if not quiet:
        print_notes(describe_files([reader]))


def _choose_bundle(
    bundle: Path, named_bundle: Path | None, inputs: tuple[str, ...]
) -> tuple[Path, tuple[str, ...]]:
    """Return bundle and inputs: with --bundle, the first argument is an input as well."""
    if named_bundle is None:
        return bundle, inputs
    source = click.get_current_context().get_parameter_source("bundle")
    return named_bundle, inputs if source is ParameterSource.DEFAULT else (str(bundle), *inputs)


def _make_suffix_note(quiet: bool) -> Callable[[str], None]:
    """Return the function that says, once for each suffix, that a watch leaves such files out."""

    def print_note(suffix: str) -> None:
        if not quiet:
            print_notes([f"files that end in {suffix} are left out; convert them to PNG or JPEG"])

    return print_note


def _open_memory(
    watch: Path | None, state: Path | None, appended: Path | None, quiet: bool
) -> SeenImages | None:
    """Return the memory of a watched folder, beside what is carried from run to run; None if nothing is."""
    from ..eval.predict.seen_images import SUFFIX, SeenImages

    carried = state or appended
    if watch is None or carried is None:
        return None
    memory = SeenImages(Path(f"{carried}{SUFFIX}"), watch)
    if len(memory) and not quiet:
        click.echo(
            f"{len(memory):,} images in {watch} were taken by earlier runs and are not taken again; to begin "
            f"anew, remove {memory.path}",
            err=True,
        )
    return memory


def _make_progress(count: int | None, limit: int | None, hidden: bool) -> Progress:
    """Return a progress bar, hidden if the number of images is unknown."""
    total = 0 if count is None else min(count, limit or count)
    return Progress(total, hidden or count is None)


def _check_together(inputs: Sequence[str], watch: Path | None, out: Path, state: Path | None) -> None:
    """Refuse options that exclude each other or have no effect."""
    if bool(inputs) == (watch is not None):
        present = "both" if inputs else "neither"
        raise InputError(
            f"expected INPUTS or --watch DIR, found {present}; the first argument is the BUNDLE, see"
            " fozo predict --help"
        )
    context = click.get_current_context()
    flags = {
        flag
        for option in context.command.params
        if context.get_parameter_source(option.name or "") is ParameterSource.COMMANDLINE
        for flag in option.opts
    }
    alone = sorted(flags & {"--new-only", "--poll", "--max-wait", "--idle-exit"})
    if alone and watch is None:
        raise InputError(f"{alone[0]} goes with --watch DIR")
    if {"--append", "--overwrite"} <= flags:
        raise InputError("expected --append or --overwrite, found both; choose one")
    if str(out) == STANDARD and flags & {"--append", "--overwrite"}:
        raise InputError("--append and --overwrite go with --out FILE")
    if state is not None and state.resolve() == out.resolve():
        raise InputError(f"--out and --state are the same file, {state}; name two")


def _open_adapter(network: Network, method: AnyMethod, seed: int) -> Adapter:
    from ..engine.streams.adapter import Adapter

    try:
        return Adapter(network, method, seed)
    except BundleError as error:
        raise BundleError(f"{error}; or predict without adapting: -m no_adapt") from error
