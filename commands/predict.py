"""`fozo predict`."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ..engine.errors import BundleError, InputError
from .options import FILE, FOLDER, MICRO_BATCH, ONE_PROVIDER, WORKERS
from .progress import Progress

if TYPE_CHECKING:
    from ..engine.bundle.bundle import Manifest
    from ..engine.registry import AnyMethod
    from ..engine.runtime.network import Network
    from ..engine.streams.adapter import Adapter
    from ..eval.predict.predict import Row
    from ..eval.predict.rows import Rows

STANDARD = "-"  # standard input or output
SAVE_SECONDS = 60  # while a stream runs, its state on disk is at most about so old


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
    from ..eval.predict import predict as predicting
    from ..eval.predict.inputs import named, watched
    from ..eval.predict.rows import Rows

    _check_together(inputs, watch, out, state)
    _, configured = parse_method(method)
    opened = Bundle.open(bundle)
    chosen = _chosen_classes(classes, opened.manifest)
    rows = Rows(out, form, top, append=append, overwrite=overwrite)
    arriving = named(inputs) if watch is None else watched(watch, poll, new_only, idle_exit)
    with Network.open(opened, **engine) as network:
        adapter = _adapter(network if chosen is None else network.select(chosen), configured, seed)
        run = _Run(adapter, rows, state, quiet)
        predictions = predicting.predict(
            adapter,
            arriving.paths,
            opened.manifest,
            classes=chosen,
            batch_size=batch_size,
            top=top,
            skip_unreadable=on_error == "skip" if on_error else watch is not None,
            max_images=max_images,
            max_wait=max_wait,
            retry=arriving.retry,
            on_batch=run.on_batch,
        )
        if watch is not None and not quiet:
            click.echo(f"Watching {watch}; Ctrl-C ends", err=True)
        run.carry_out(predictions, _progress(arriving.count, max_images, quiet or rows.on_screen))


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


def _chosen_classes(path: Path | None, manifest: Manifest) -> list[int] | None:
    """The indices in a list of identifiers or indices, in ascending order; None is all classes."""
    if path is None:
        return None
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the list of classes {path}: {error}") from error
    known = {str(index): index for index in range(manifest.classes)}
    known |= {name: index for index, name in enumerate(manifest.class_ids or ())}
    unknown = [line for line in lines if line not in known]
    if unknown or not lines:
        raise InputError(
            f"expected identifiers or indices of classes of {manifest.model}, one per line, in {path}, found "
            f"{repr(unknown[0]) if unknown else 'none'}; its classes are named like {next(reversed(known))}"
        )
    return sorted({known[line] for line in lines})


def _adapter(network: Network, method: AnyMethod, seed: int) -> Adapter:
    from ..engine.streams.adapter import Adapter

    try:
        return Adapter(network, method, seed)
    except BundleError as error:
        raise BundleError(f"{error}; or predict without adapting: -m no_adapt") from error


class _Run:
    """A stream under way. On disk, rows and state are those of the same batches."""

    def __init__(self, adapter: Adapter, rows: Rows, state: Path | None, quiet: bool) -> None:
        """Loads the state if it is there.

        Raises:
            OutputError: it could not be saved.
            StateError: it belongs to another stream.
        """
        from ..engine.files import check_writable

        if state is not None:
            check_writable(state)
            if state.exists():
                adapter.load(state)
        self._adapter, self._rows, self._state, self._quiet = adapter, rows, state, quiet
        self._guarded = adapter.guarded
        self._images = self._skipped = self._unreadable = 0
        # What was learnt from the images whose rows are written.
        self._kept = self._initial = (adapter.state, adapter.guarded)
        self._begun = self._saved = time.monotonic()

    def carry_out(self, predictions: Generator[Row, None, None], progress: Progress) -> None:
        """Writes all rows; whatever happens, saves the state and says how far it came."""
        silent = self._quiet
        try:
            with closing(predictions), progress as self._advance:
                for row in predictions:
                    self._rows.add(row)
                    self._unreadable += row.error is not None
            self._rows.write()  # without images, the header
        except BrokenPipeError:  # as in `| head`: no error, and nothing to tell
            silent = True
        except BaseException:
            silent = silent or not self._images
            raise
        finally:
            self._rows.close()
            self._save()
            if not silent:
                click.echo(self._summary(), err=True)

    def on_batch(self, images: int) -> None:
        """To be called when all rows of a batch have been added."""
        self._rows.write()
        self._kept = self._adapter.state, self._adapter.guarded
        self._images, self._skipped = self._images + images, self._unreadable
        self._advance(images)
        if time.monotonic() - self._saved > SAVE_SECONDS:
            self._save()

    def _save(self) -> None:
        self._adapter.state, self._adapter.guarded = self._kept
        if self._state is not None and self._kept is not self._initial:
            self._adapter.save(self._state)
        self._saved = time.monotonic()

    def _summary(self) -> str:
        """One line for people."""
        seconds = time.monotonic() - self._begun
        rate = (self._images - self._skipped) / max(seconds, 1e-9)
        state = f"; state: {self._state}" if self._state is not None and self._state.exists() else ""
        return (
            f"{self._images:,} images, {self._skipped:,} unreadable, {seconds:.1f} s, {rate:.1f} images/s, "
            f"guarded batches: {self._adapter.guarded - self._guarded}{state}"
        )
